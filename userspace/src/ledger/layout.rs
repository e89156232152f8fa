//! Where in its stretch an impression goes, and the impressions of a stretch laid out in lines of
//! another form. Nothing here changes what is known of any of them.

use super::directory::Form;
use super::leaf::{
    DENSE_SLOTS, Leaf, Rest, SLOT_BITS, SPARSE_SLOTS, STRETCH_LINES, SparseEntry, WIDE_SLOTS, has_code,
};
use super::pool::Pool;
use super::runs::Runs;

/// Of a stretch's impressions, one in so many may be cast out when it becomes dense; with more, wide
/// lines are smaller.
const OUTCASTS_DIVISOR: usize = 8;

/// Level of a run that is a page.
const PAGE_LEVEL: u8 = STRETCH_LINES.ilog2() as u8;

/// The dense line of an entry within its stretch.
pub(super) const fn line_of(entry: &SparseEntry) -> u16 {
    entry.rest().slot / DENSE_SLOTS as u16
}

/// Sparse lines of entries that [fit](level_for) this level.
pub(super) fn sparse(
    leaves: &mut Pool<Leaf>,
    runs: &mut Runs,
    entries: &[SparseEntry],
    level: u8,
) -> Option<Form> {
    let first = runs.take(leaves, level)?;
    for entry in entries {
        leaves.group_mut(first + part_of(entry.rest().slot, level)).sparse_push(*entry);
    }
    Some(Form::Sparse { first, level })
}

/// Takes an entry out of sparse lines; it is kept elsewhere.
pub(super) fn sparse_remove(leaves: &mut Pool<Leaf>, form: Form, entry: SparseEntry) {
    let Form::Sparse { first, level } = form else { return };
    let leaf = leaves.group_mut(first + part_of(entry.rest().slot, level));
    leaf.sparse_remove(entry.rest());
    leaf.mark_outcasts();
}

/// Gives the lines of a form back.
pub(super) fn give_back(runs: &mut Runs, form: Form) {
    match form {
        Form::Inline => {}
        Form::Sparse { first, level } => runs.give(first, level),
        Form::Dense { first } => runs.give(first, PAGE_LEVEL),
        Form::Wide { firsts } => firsts.into_iter().for_each(|first| runs.give(first, PAGE_LEVEL)),
    }
}

/// Dense lines of entries sorted by line and second, but for the `outcasts`, which do not fit; `None` when
/// those are too many.
pub(super) fn dense(
    leaves: &mut Pool<Leaf>,
    runs: &mut Runs,
    entries: &[SparseEntry],
    outcasts: &mut Vec<SparseEntry>,
) -> Option<Form> {
    outcasts.clear();
    let first = runs.take(leaves, PAGE_LEVEL)?;
    for line in entries.chunk_by(|a, b| line_of(a) == line_of(b)) {
        let leaf = leaves.group_mut(dense_place(first, line[0].rest()).0);
        leaf.dense_begin(line[line.len() / 2].rest().second);
        for entry in line {
            let (rest, state) = (entry.rest(), entry.state());
            let (_, slot) = dense_place(first, rest);
            if has_code(state) && leaf.dense_has_room(slot, rest.second) {
                leaf.dense_put(slot, rest.second, state);
            } else {
                leaf.mark_outcasts();
                outcasts.push(*entry);
            }
        }
    }
    if outcasts.len() > entries.len() / OUTCASTS_DIVISOR {
        runs.give(first, PAGE_LEVEL);
        return None;
    }
    Some(Form::Dense { first })
}

/// As [`dense`], in wide lines.
pub(super) fn wide(
    leaves: &mut Pool<Leaf>,
    runs: &mut Runs,
    entries: &[SparseEntry],
    outcasts: &mut Vec<SparseEntry>,
) -> Option<Form> {
    outcasts.clear();
    let first = runs.take(leaves, PAGE_LEVEL)?;
    let Some(second) = runs.take(leaves, PAGE_LEVEL) else {
        runs.give(first, PAGE_LEVEL);
        return None;
    };
    let firsts = [first, second];
    for entry in entries {
        let (rest, state) = (entry.rest(), entry.state());
        let (line, slot) = wide_place(firsts, rest);
        let leaf = leaves.group_mut(line);
        if has_code(state) && leaf.wide_has_room(slot) {
            leaf.wide_put(slot, rest.second, state);
        } else {
            leaf.mark_outcasts();
            outcasts.push(*entry);
        }
    }
    Some(Form::Wide { firsts })
}

/// The most sparse lines of a stretch, as a logarithm: half as many as dense ones.
pub(super) const SPARSE_LEVEL_MAX: u8 = STRETCH_LINES.ilog2() as u8 - 1;

/// Which of `1 << level` equal parts of a stretch a slot is in.
#[inline]
pub(super) const fn part_of(slot: u16, level: u8) -> u32 {
    slot as u32 >> (SLOT_BITS - level as u32)
}

/// The dense line of a position and its slot there.
#[inline(always)]
pub(super) const fn dense_place(first: u32, rest: Rest) -> (u32, u8) {
    let (line, slot) = (rest.slot / DENSE_SLOTS as u16, rest.slot % DENSE_SLOTS as u16);
    (first + line as u32, slot as u8)
}

/// The wide line of a position and its slot there.
#[inline(always)]
pub(super) const fn wide_place(firsts: [u32; 2], rest: Rest) -> (u32, u8) {
    let (line, slot) = (rest.slot as usize / WIDE_SLOTS, rest.slot as usize % WIDE_SLOTS);
    let first = if line < STRETCH_LINES { firsts[0] } else { firsts[1] };
    (first + (line % STRETCH_LINES) as u32, slot as u8)
}

/// The least level at which these and one more fit sparse lines.
pub(super) fn level_for(entries: &[SparseEntry], more: Rest) -> Option<u8> {
    (0..=SPARSE_LEVEL_MAX).find(|&level| {
        let mut counts = [0_u8; 1 << SPARSE_LEVEL_MAX];
        let slots = entries.iter().map(|entry| entry.rest().slot).chain([more.slot]);
        slots.for_each(|slot| {
            counts[part_of(slot, level) as usize] = counts[part_of(slot, level) as usize].saturating_add(1)
        });
        counts.iter().all(|&count| usize::from(count) <= SPARSE_SLOTS)
    })
}
