//! Documents about what a node says.

use std::fmt::Write;

use weir_common::reason::{Class, Reason};

use super::exported::series;
use super::promql::selectors;
use super::{path, read};

const REASONS: &str = "docs/reasons.md";

/// The classes in the order of the page, and what is common to what is in them.
const CLASSES: [(Class, &str); 6] = [
    (Class::Refused, "Well formed and not taken. Clicks among them are in the books as refused."),
    (Class::Malformed, "Not what the protocol says. Clicks among them are in the books as malformed."),
    (Class::Filtered, "Clicks that are counted as gross and not billed."),
    (Class::Unseen, "Lost before any code of Weir saw it, so in no book of clicks."),
    (Class::Passed, "Packets that are not clicks, or not to be dropped: the kernel gets them."),
    (Class::Delivered, "Packets of clicks on their way to a worker."),
];

/// The page of the reasons, as the one table has them.
fn reasons() -> String {
    let mut page = "# Reasons\n\n\
        Why a packet was dropped or a click not counted as valid, and what to do. Made from `common/src/reason.rs` by a\n\
        test (`WEIR_BLESS=1` writes it anew); `weir explain NAME` says the same on a node. Frames are counted in\n\
        `weir_frames_total`, clicks in `weir_clicks_by_reason_total`, what nobody saw in `weir_unseen_datagrams_total`.\n"
        .to_owned();
    for (class, common) in CLASSES {
        let _ = write!(page, "\n## {}\n\n{common}\n", class.name());
        Reason::ALL
            .iter()
            .filter(|reason| reason.class() == class)
            .for_each(|&reason| section(&mut page, reason));
    }
    let beside = |reason: &&Reason| reason.class() == Class::None && **reason != Reason::None;
    page.push_str("\n## beside another\n\nCounted as well as the reason of the same packet.\n");
    Reason::ALL.iter().filter(beside).for_each(|&reason| section(&mut page, reason));
    page
}

fn section(page: &mut String, reason: Reason) {
    let (name, number) = (reason.name(), reason as u8);
    // Writing to a String cannot fail.
    let _ =
        write!(page, "\n### {name}\n\nNumber {number}. {}\n\n**Do** {}\n", reason.cause(), reason.remedy());
}

#[test]
fn the_page_of_the_reasons_is_what_the_table_says() {
    let made = reasons();
    for &reason in Reason::ALL.iter().filter(|&&reason| reason != Reason::None) {
        assert_eq!(made.matches(&format!("\n### {}\n", reason.name())).count(), 1, "{reason:?}");
    }
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(path(REASONS), &made).expect("the page is written");
    }
    assert!(read(REASONS) == made, "{REASONS} is not what the table says: run with WEIR_BLESS=1");
}

#[test]
fn a_document_names_only_metrics_that_a_node_exports() {
    let exported = series();
    for name in ["docs/operator-guide.md", "docs/runbook.md", REASONS, "deploy/prometheus/weir.rules.yml"] {
        let text = read(name);
        for selector in selectors(&text).iter().filter(|selector| !is_other(selector.metric)) {
            let has =
                |end: &str| exported.iter().any(|series| series.name == format!("{}{end}", selector.metric));
            assert!(["", "_bucket", "_total"].into_iter().any(has), "{name}: {}", selector.metric);
        }
    }
}

/// Words of documents that begin as a metric does and are none: the package's file, protocols of BIRD, and
/// a variable of the Ansible collection.
fn is_other(word: &str) -> bool {
    ["weir_VERSION_ARCH", "weir_NEXT_ARCH", "weir_v4", "weir_v6", "weir_package"].contains(&word)
}
