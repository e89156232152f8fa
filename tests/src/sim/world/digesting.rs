//! Digests come to be, and crashes meanwhile.

use super::super::oracle::Verdict;
use super::World;

impl World {
    /// The thread that writes digests writes one, if there is a segment for it.
    pub(super) fn digest(&mut self) -> Verdict {
        // A digest is written with the calls of the standard library, past the simulated disk: it is
        // there whole or not there, as its name and its sync have it.
        if self.trouble().is_some() {
            return Ok(());
        }
        let Some(node) = &mut self.node else { return Ok(()) };
        let Some(digested) = node.aside.digest()? else { return Ok(()) };
        let segment = digested.segment.file_name();
        let Ok(header) = digested.header else {
            self.tell(|| format!("no digest of {segment}: {:?}", digested.header));
            return Ok(());
        };
        if self.chance.per_mille(self.plan.crashes / 4) {
            digested.cut().map_err(|error| error.to_string())?;
            return self.crash("the writing of a digest");
        }
        self.disk.borrow_mut().adopt(&digested.path).map_err(|error| error.to_string())?;
        self.tally.digests += 1;
        let id = digested.segment;
        let blocks = ((id.epoch.0, id.worker.0, header.first.get()), header.last.get());
        self.oracle.digested(blocks);
        self.tell(|| format!("a digest of {segment}"));
        if self.chance.per_mille(self.plan.crashes / 4) {
            return self.crash("a digest that nobody knows of");
        }
        let Some(node) = &self.node else { return Ok(()) };
        node.aside.tell(header);
        Ok(())
    }

    /// The rows that the start left for later are counted at some time.
    pub(super) fn count_past(&mut self) -> Verdict {
        if !self.is_at_rest && !self.chance.one_in(8) {
            return Ok(());
        }
        let Some(node) = &mut self.node else { return Ok(()) };
        if node.aside.count_past()? {
            self.tell(|| "the past is counted".to_owned());
        }
        Ok(())
    }
}
