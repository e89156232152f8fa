//! What the README shows of the SDK is what its documentation compiles.

#[test]
fn the_readmes_lines_stand_in_the_documentation_that_is_compiled() {
    let readme = include_str!("../../README.md");
    let (_, behind) = readme.split_once("```rust\n").expect("a sample");
    let (sample, _) = behind.split_once("```").expect("its end");
    let compiled = include_str!("../src/lib.rs");
    let (compiled, _) = compiled.split_once("#![forbid").expect("the documentation comes first");
    let lines: Vec<_> = compiled.lines().filter_map(|line| line.strip_prefix("//! ")).collect();
    assert!(sample.lines().count() > 5, "{sample}");
    for line in sample.lines().filter(|line| !line.is_empty()) {
        assert!(lines.contains(&line), "{line:?} is in no sample that is compiled");
    }
}
