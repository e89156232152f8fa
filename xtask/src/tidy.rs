//! `cargo xtask tidy`: what no compiler checks. Sizes of files, names of files, leftovers, and
//! whether the paths and tests that documents name are there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::promises::{self, SPECIFICATION};

/// Longer files are hard to hold in one's head. Generated ones have no place in the tree.
const LINES_MAX: usize = 500;
/// Names that say nothing of what is inside.
const BANNED_NAMES: [&str; 6] = ["utils", "util", "helpers", "helper", "misc", "common_utils"];
/// Written in two parts, so that this file does not find itself.
const LEFTOVER: &str = concat!("FIX", "ME");
/// Larger files belong somewhere else than in the tree.
const BYTES_MAX: u64 = 512 << 10;

pub(crate) fn run(root: &Path) -> Result<()> {
    let files = command::output(std::process::Command::new("git").current_dir(root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let mut findings = Vec::new();
    for name in files.lines() {
        let path = root.join(name);
        // Deleted and not yet committed.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.len() > BYTES_MAX {
            findings.push(format!("{name}: {} bytes; at most {BYTES_MAX}", metadata.len()));
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        findings.extend(look(Path::new(name), &text, &|path| root.join(path).exists()));
    }
    let specification = root.join(SPECIFICATION);
    let text = fs::read_to_string(&specification)
        .with_context(|| format!("cannot read {}", specification.display()))?;
    findings.extend(promises::findings(&text, &|path| fs::read_to_string(root.join(path)).ok()));
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{} untidy:\n  {}", findings.len(), findings.join("\n  "))
}

/// What is wrong with one file. Pure: `exists` answers for the tree.
fn look(name: &Path, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let mut findings = Vec::new();
    let mut find = |line: Option<usize>, what: String| {
        let line = line.map_or(String::new(), |line| format!(":{}", line + 1));
        findings.push(format!("{}{line}: {what}", name.display()));
    };
    let extension = name.extension().and_then(|extension| extension.to_str()).unwrap_or("");
    let stem = name.file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
    let folders = name.parent().into_iter().flat_map(Path::iter).filter_map(|part| part.to_str());
    if let Some(banned) = folders.chain([stem]).find(|part| BANNED_NAMES.contains(part)) {
        find(None, format!("{banned:?} says nothing; name it after what it is about"));
    }
    if extension == "rs" && text.lines().count() > LINES_MAX {
        find(None, format!("{} lines; at most {LINES_MAX}, so split it", text.lines().count()));
    }
    for (line, content) in text.lines().enumerate() {
        if content.contains(LEFTOVER) {
            find(Some(line), format!("{LEFTOVER} left over"));
        }
        if matches!(extension, "rs" | "toml" | "md") && content.ends_with([' ', '\t']) {
            find(Some(line), "space at the end of the line".to_owned());
        }
        if extension == "md" {
            for path in paths_in(content).filter(|path| !exists(path) && !exists(&beside(name, path))) {
                find(Some(line), format!("{} is not in the tree", path.display()));
            }
        }
    }
    findings
}

fn beside(document: &Path, path: &Path) -> PathBuf {
    document.parent().unwrap_or(Path::new("")).join(path)
}

/// Paths of the tree in one line of a document: in backquotes or as a link's target, with a
/// slash, of plain letters, relative, and not below `target`, which is built.
fn paths_in(line: &str) -> impl Iterator<Item = &Path> {
    let quoted = line.split('`').skip(1).step_by(2);
    let linked = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    let looks_like_path = move |text: &&str| {
        text.contains('/')
            && !text.starts_with('/')
            && !text.starts_with("target/")
            && !text.contains("//")
            && text.chars().all(plain)
    };
    quoted
        .chain(linked.map(|target| target.split('#').next().unwrap_or(target)))
        .filter(looks_like_path)
        .map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn finds(name: &str, text: &str, expected: &[&str]) {
        let there = |path: &Path| ["docs/architecture.md", "xtask/src"].map(Path::new).contains(&path);
        assert_eq!(look(Path::new(name), text, &there), expected);
    }

    #[test]
    fn a_long_file_is_found_and_one_at_the_bound_is_not() {
        finds("a/b.rs", &"x\n".repeat(LINES_MAX), &[]);
        finds("a/b.rs", &"x\n".repeat(LINES_MAX + 1), &["a/b.rs: 501 lines; at most 500, so split it"]);
        finds("a/b.lock", &"x\n".repeat(LINES_MAX + 1), &[]);
    }

    #[test]
    fn a_name_that_says_nothing_is_found_in_files_and_folders() {
        let found = "says nothing; name it after what it is about";
        finds("a/utils.rs", "", &[&format!("a/utils.rs: \"utils\" {found}")]);
        finds("misc/a.rs", "", &[&format!("misc/a.rs: \"misc\" {found}")]);
        finds("a/miscount.rs", "", &[]);
    }

    #[test]
    fn leftovers_are_found_with_their_line() {
        finds(
            "a.rs",
            &format!("fn a() {{}}\n// {LEFTOVER} later\n"),
            &[&format!("a.rs:2: {LEFTOVER} left over")],
        );
        finds("a.rs", "let a = 1; \n", &["a.rs:1: space at the end of the line"]);
    }

    #[test]
    fn a_document_names_only_paths_that_are_there() {
        let good = "See `docs/architecture.md`, [it](docs/architecture.md#top) and `xtask/src`.";
        finds("README.md", good, &[]);
        finds(
            "docs/other.md",
            "See [it](../docs/architecture.md).",
            &["docs/other.md:1: ../docs/architecture.md is not in the tree"],
        );
        finds(
            "README.md",
            "See `docs/gone.md` and [it](a/b).",
            &["README.md:1: docs/gone.md is not in the tree", "README.md:1: a/b is not in the tree"],
        );
        finds("README.md", "`/etc/weir` `and/or that` `https://a.b/c` `target/demo` `GET /v1`", &[]);
    }
}
