//! Texts for people, folded into lines between words. What is to be typed is never cut.

use textwrap::{Options, WordSplitter, wrap};

/// `text` in lines of this many columns: the first begins with `first`, the others with `others`.
pub(crate) fn folded(first: &str, others: &str, text: &str, columns: usize) -> Vec<String> {
    let options = Options::new(columns)
        .initial_indent(first)
        .subsequent_indent(others)
        .break_words(false)
        .word_splitter(WordSplitter::NoHyphenation);
    wrap(text, options).into_iter().map(|line| line.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::folded;

    #[test]
    fn lines_end_between_words_and_what_is_too_long_stays_whole() {
        let lines = folded("Do   ", "     ", "run `chmod o-rwx file`", 14);
        assert_eq!(lines, ["Do   run", "     `chmod", "     o-rwx", "     file`"]);
        assert_eq!(folded("", " ", "an-unbreakable-word b", 5), ["an-unbreakable-word", " b"]);
    }
}
