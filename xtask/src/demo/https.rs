//! The demo's share of clicks over HTTPS: a certificate of its own, a generator beside the other, and its
//! part of the books.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use weir_kafka_lab::{Authority, Holder};

use super::{Folder, LATE_BOUND_BESIDE_OTHERS};
use crate::command;
use crate::lab::{Lab, Pop};
use crate::status::{number, numbers};

/// The port of HTTPS.
const PORT: u16 = 4443;
/// The name in the certificate: nobody's (RFC 6761).
const NAME: &str = "weir.test";
/// One click in so many of the plan goes over HTTPS.
const SHARE: u32 = 25;
/// Clicks of a request.
const BATCH: &str = "10";

/// Lines of the node's config.
pub(super) fn config(pop: &Pop) -> String {
    let v4 = pop.v4;
    format!(
        "[rx.http]\ntls_port = {PORT}\naddresses = [\"{v4}\"]\ncertificate_file = \"door.pem\"\n\
         key_file = \"door.key\"\n\n"
    )
}

/// Makes an authority nobody else trusts, and the node's certificate by it.
pub(super) fn make_certificate(folder: &Path) -> Result<()> {
    Authority::new(folder)?.issue("door", Holder::Name(NAME), 2)
}

/// What the generator over HTTPS writes.
pub(super) fn report(folder: &Path) -> PathBuf {
    folder.join("generator-https.json")
}

fn acked(folder: &Path) -> PathBuf {
    folder.join("acked-https.log")
}

/// Starts the generator over HTTPS: the `SHARE`th part of the clicks.
pub(super) fn start(folder: &Folder, lab: &Lab, rate: u32, duration: Duration) -> Result<command::Running> {
    let mut load = lab.sdk.command(&folder.binaries.join("weir-bench"));
    load.args(["http", "--target", &format!("{}:{PORT}", folder.pop.v4), "--tls", "--server-name", NAME]);
    load.arg("--ca").arg(folder.path.join("ca.pem"));
    load.args([
        "--rate",
        &(rate / SHARE).max(1).to_string(),
        "--duration",
        &format!("{}s", duration.as_secs()),
    ]);
    load.args(["--batch", BATCH, "--connections", "16", "--profile", "demo"]);
    load.args(["--issuer", "1", "--key", "1", "--seed", &std::process::id().to_string(), "--drain", "60s"]);
    load.args(["--late-bound", LATE_BOUND_BESIDE_OTHERS]);
    load.arg("--key-file").arg(folder.key());
    load.arg("--json").arg(report(&folder.path)).arg("--acked-log").arg(acked(&folder.path));
    let log = fs::File::create(folder.path.join("generator-https.log"))?;
    load.stdout(log.try_clone()?).stderr(log);
    command::Running::start("the generator over HTTPS", &mut load)
}

/// Adds what was acknowledged over HTTPS to the log of all.
pub(super) fn join_acked(folder: &Path, all: &Path) -> Result<()> {
    let mut file = fs::OpenOptions::new().append(true).open(all)?;
    std::io::copy(&mut fs::File::open(acked(folder))?, &mut file)?;
    Ok(())
}

/// The report of the datagrams with the clicks of the other added: what the node must have counted.
pub(super) fn joined(mut udp: Value, https: &Value) -> Value {
    for table in ["/expected/clicks/outcomes", "/expected/clicks/reasons"] {
        for (name, more) in numbers(https, table) {
            if let Some(cell) = udp.pointer_mut(table).and_then(Value::as_object_mut) {
                let before = cell.get(&name).and_then(Value::as_u64).unwrap_or(0);
                cell.insert(name, (before + more).into());
            }
        }
    }
    for sum in ["/expected/clicks/retried", "/expected/clicks_sent_total"] {
        let more = number(https, sum);
        if let Some(cell) = udp.pointer_mut(sum) {
            *cell = (cell.as_u64().unwrap_or(0) + more).into();
        }
    }
    let kinds = https.pointer("/kinds").and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(all) = udp.pointer_mut("/kinds").and_then(Value::as_array_mut) {
        all.extend(kinds.into_iter().map(|mut kind| {
            let name = kind["name"].as_str().unwrap_or("?").to_owned();
            kind["name"] = format!("{name}, over HTTPS").into();
            kind
        }));
    }
    udp
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn clicks_over_https_are_added_to_what_the_node_must_have_counted() {
        let report = |accepted: u64| {
            json!({
                "kinds": [{ "name": "fresh", "frames": 0, "clicks": accepted }],
                "expected": {
                    "frames": { "bad_magic": 3 },
                    "clicks": { "outcomes": { "accepted": accepted }, "reasons": {}, "retried": 2 },
                    "clicks_sent_total": accepted,
                },
            })
        };
        let mut https = report(5);
        https["expected"]["clicks"]["outcomes"]["late"] = 1.into();
        let joined = joined(report(7), &https);
        assert_eq!(joined["expected"]["clicks"]["outcomes"], json!({ "accepted": 12, "late": 1 }));
        assert_eq!(joined["expected"]["clicks"]["retried"], 4);
        assert_eq!(joined["expected"]["clicks_sent_total"], 12);
        assert_eq!(joined["expected"]["frames"], json!({ "bad_magic": 3 }), "frames are the other's alone");
        assert_eq!(joined["kinds"][1]["name"], "fresh, over HTTPS");
    }
}
