//! The framing of chunks, taken off as bytes come: RFC 9112, section 7.1.
//!
//! One byte after the other decides, so that it does not matter in which pieces they come; only content
//! is copied in bulk. Extensions and trailers are read by their grammar and thrown away, and count
//! against one bound, so that framing cannot outgrow content without end.

use crate::rx::http::problem::Problem;

/// Digits of a chunk's size: 16 always fit 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;
/// Bytes of all extensions, leading zeros and trailers of a body. Nobody sends any; signed uploads use about 100 a chunk.
const ASIDE_BYTES_MAX: u32 = 4096;

/// Where in the grammar the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// The first digit of a size.
    #[default]
    SizeStart,
    /// The further digits.
    Size,
    /// White space between size and extension; only `;` may follow.
    Blank,
    /// An extension, to the end of the line.
    Extension,
    /// LF after a size line.
    SizeLf,
    /// Content.
    Content,
    /// CR after content.
    ContentCr,
    /// LF after content.
    ContentLf,
    /// The start of a line after the last chunk.
    TrailerStart,
    /// The name of a trailer.
    TrailerName,
    /// Its value.
    TrailerValue,
    /// LF after a trailer.
    TrailerLf,
    /// LF of the empty line at the end.
    EndLf,
    /// The body has ended.
    End,
}

/// Takes the framing of chunks off a body, in pieces of any size. Bytes stand nowhere but in the output.
#[derive(Clone, Debug, Default)]
pub struct Chunked {
    place: Place,
    /// Digits of the size that is being read.
    digits: u8,
    /// Bytes of the chunk that are still to come.
    left: u64,
    /// Content so far.
    content_bytes: u64,
    /// Extensions, leading zeros and trailers so far.
    aside_bytes: u32,
    /// What was wrong; from then on everything is.
    refused: Option<Problem>,
}

impl Chunked {
    /// Takes bytes from `input` and appends content to `out`, at most `max` bytes in all. Gives how many
    /// bytes of input were used, and whether the body has ended; what is left then is the next request.
    ///
    /// # Errors
    /// [`Problem::BadChunk`], or [`Problem::TooLarge`] as soon as a size says so; the same ever after.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>, max: u64) -> Result<(usize, bool), Problem> {
        if let Some(problem) = self.refused {
            return Err(problem);
        }
        self.run(input, out, max).inspect_err(|problem| self.refused = Some(*problem))
    }

    fn run(&mut self, input: &[u8], out: &mut Vec<u8>, max: u64) -> Result<(usize, bool), Problem> {
        let mut used = 0;
        while self.place != Place::End && used < input.len() {
            if self.place == Place::Content {
                let here = &input[used..];
                let len = usize::try_from(self.left).map_or(here.len(), |left| left.min(here.len()));
                out.extend_from_slice(&here[..len]);
                used += len;
                self.left -= len as u64;
                if self.left == 0 {
                    self.place = Place::ContentCr;
                }
            } else {
                self.place = self.step(input[used], max)?;
                used += 1;
            }
        }
        Ok((used, self.place == Place::End))
    }

    /// What stands after a byte of framing.
    fn step(&mut self, byte: u8, max: u64) -> Result<Place, Problem> {
        use Place as P;
        Ok(match (self.place, byte) {
            (P::SizeStart | P::Size, _) if byte.is_ascii_hexdigit() => return self.digit(byte),
            (P::Size, b'\r') => P::SizeLf,
            (P::Size | P::Blank, b' ' | b'\t') => self.aside(P::Blank)?,
            (P::Size | P::Blank, b';') => self.aside(P::Extension)?,
            (P::Extension, b'\r') => P::SizeLf,
            (P::Extension, _) if is_text(byte) => self.aside(P::Extension)?,
            (P::SizeLf, b'\n') => return self.begin_content(max),
            (P::ContentCr, b'\r') => P::ContentLf,
            (P::ContentLf, b'\n') => P::SizeStart,
            (P::TrailerStart, b'\r') => P::EndLf,
            (P::TrailerStart | P::TrailerName, _) if is_name(byte) => self.aside(P::TrailerName)?,
            (P::TrailerName, b':') => self.aside(P::TrailerValue)?,
            (P::TrailerValue, b'\r') => P::TrailerLf,
            (P::TrailerValue, _) if is_text(byte) => self.aside(P::TrailerValue)?,
            (P::TrailerLf, b'\n') => P::TrailerStart,
            (P::EndLf, b'\n') => P::End,
            _ => return Err(Problem::BadChunk),
        })
    }

    fn digit(&mut self, byte: u8) -> Result<Place, Problem> {
        if self.place == Place::SizeStart {
            self.digits = 0; // nothing is left of the chunk before
        }
        if self.digits == SIZE_DIGITS_MAX {
            return Err(Problem::BadChunk);
        }
        if self.digits > 0 && self.left == 0 {
            self.aside(Place::Size)?; // a leading zero says nothing
        }
        let value = (byte as char).to_digit(16).ok_or(Problem::BadChunk)?;
        self.digits += 1;
        self.left = self.left << 4 | u64::from(value);
        Ok(Place::Size)
    }

    fn begin_content(&mut self, max: u64) -> Result<Place, Problem> {
        if self.left == 0 {
            return Ok(Place::TrailerStart);
        }
        let content_bytes = self.content_bytes.checked_add(self.left).filter(|bytes| *bytes <= max);
        self.content_bytes = content_bytes.ok_or(Problem::TooLarge)?;
        Ok(Place::Content)
    }

    /// Counts a byte of an extension or trailer.
    fn aside(&mut self, next: Place) -> Result<Place, Problem> {
        self.aside_bytes += 1;
        if self.aside_bytes > ASIDE_BYTES_MAX { Err(Problem::BadChunk) } else { Ok(next) }
    }
}

/// Whether it may stand in an extension or a value: no control byte but the tab, above all no bare LF.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Whether it may stand in a name: `tchar` of RFC 9110, section 5.6.2.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Content, bytes used and whether it ended, when fed at once.
    fn fed(input: &[u8], max: u64) -> Result<(Vec<u8>, usize, bool), Problem> {
        let (mut chunked, mut out) = (Chunked::default(), Vec::new());
        let (used, has_ended) = chunked.feed(input, &mut out, max)?;
        Ok((out, used, has_ended))
    }

    fn refused(input: &str) -> Problem {
        fed(input.as_bytes(), 1 << 20).expect_err(input)
    }

    #[test]
    fn chunks_become_content_and_the_next_request_is_left() {
        let body = "4\r\nWiki\r\n5\r\npedia\r\nA\r\n0123456789\r\n0\r\n\r\n";
        let (content, used, has_ended) = fed(format!("{body}GET /").as_bytes(), 100).expect("sound");
        assert_eq!((content.as_slice(), used, has_ended), (&b"Wikipedia0123456789"[..], body.len(), true));
    }

    #[test]
    fn a_body_that_was_cut_off_has_not_ended() {
        let body = b"4\r\nWiki\r\n0\r\nA: b\r\n\r\n";
        for len in 0..body.len() {
            assert_eq!(fed(&body[..len], 100).map(|(_, used, ended)| (used, ended)), Ok((len, false)));
        }
    }

    #[test]
    fn extensions_and_trailers_are_ignored_within_a_bound() {
        let body = "4;a=b;c=\"d e\" \t\r\nWiki\r\n0 ;x\r\nA: b\r\nSig-1:\r\n\r\n";
        assert_eq!(fed(body.as_bytes(), 4), Ok((b"Wiki".to_vec(), body.len(), true)));
        let most = ASIDE_BYTES_MAX as usize;
        for (before, byte) in [("1;", "x"), ("1", " "), ("0\r\nA:", "b"), ("0\r\n", "A")] {
            let of = |len: usize| fed(format!("{before}{}", byte.repeat(len)).as_bytes(), 9);
            assert!(of(most - 2).is_ok());
            assert_eq!(of(most + 1), Err(Problem::BadChunk), "{before}");
        }
        let zeros = "0000000000000001\r\na\r\n".repeat(most / 14);
        assert_eq!(fed(zeros.as_bytes(), 1 << 20), Err(Problem::BadChunk), "zeros in many small ones");
        let small = "1;xxxxxxx\r\na\r\n".repeat(most / 8);
        assert!(fed(small.as_bytes(), 1 << 20).is_ok());
        assert_eq!(
            fed(format!("{small}1;").as_bytes(), 1 << 20),
            Err(Problem::BadChunk),
            "in many small ones"
        );
    }

    #[test]
    fn a_chunk_size_that_is_no_plain_hex_number_is_refused() {
        for size in ["", " 4", "+4", "-4", "0x4", "4g", "4,", "4 4", "4\t4", ";a", "4\u{b}", "\u{ff14}"] {
            assert_eq!(refused(&format!("{size}\r\nWiki\r\n")), Problem::BadChunk, "{size:?}");
        }
    }

    #[test]
    fn leading_zeros_of_a_chunk_size_are_bounded() {
        assert!(fed(b"0000000000000004\r\nWiki\r\n", 9).is_ok());
        assert_eq!(refused("00000000000000004\r\nWiki\r\n"), Problem::BadChunk);
        assert_eq!(refused(&"0".repeat(1 << 20)), Problem::BadChunk);
        assert_eq!(fed(b"0000000000000000\r\n\r\n", 9), Ok((Vec::new(), 20, true)));
    }

    #[test]
    fn a_bare_cr_or_lf_in_chunks_is_refused() {
        for body in [
            "4\nWiki\r\n",
            "4\rWiki\r\n",
            "4\r\nWiki\n0\r\n\r\n",
            "4\r\nWiki0\r\n\r\n",
            "4\r\nWiki\r0\r\n\r\n",
            "4;a\nb\r\n",
            "4;a\rb\r\n",
            "4;\0\r\n",
            "0\n\r\n",
            "0\r\n\n",
            "0\r\n\rX",
            "0\r\nA: b\n\r\n",
            "0\r\nA: b\rX\r\n",
            "0\r\nA: \0\r\n",
        ] {
            assert_eq!(refused(body), Problem::BadChunk, "{body:?}");
        }
    }

    #[test]
    fn what_is_no_trailer_after_the_last_chunk_is_refused() {
        for after in ["GET / HTTP/1.1\r\n", " A: b\r\n", ": b\r\n", "A : b\r\n", "A\r\n"] {
            assert_eq!(refused(&format!("0\r\n{after}")), Problem::BadChunk, "{after:?}");
        }
    }

    #[test]
    fn a_size_beyond_the_bound_is_refused_before_its_content_comes() {
        assert_eq!(fed(b"5\r\nabcde\r\n", 4), Err(Problem::TooLarge));
        assert_eq!(fed(b"ffffffffffffffff\r\n", u64::MAX - 1), Err(Problem::TooLarge));
        assert_eq!(fed(b"2\r\nab\r\n3\r\n", 4), Err(Problem::TooLarge));
        assert_eq!(
            fed(b"1\r\na\r\nffffffffffffffff\r\n", u64::MAX),
            Err(Problem::TooLarge),
            "nor by overflow"
        );
        assert!(fed(b"2\r\nab\r\n2\r\ncd\r\n", 4).is_ok());
    }

    #[test]
    fn after_a_refusal_nothing_is_taken_any_more() {
        let (mut chunked, mut out) = (Chunked::default(), Vec::new());
        assert_eq!(chunked.feed(b"1\r\na\n", &mut out, 9), Err(Problem::BadChunk));
        assert_eq!(chunked.feed(b"\r\n0\r\n\r\n", &mut out, 9), Err(Problem::BadChunk));
        assert_eq!(out, b"a");
    }

    /// Pieces of chunked bodies, sound and not.
    fn any_body() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop::sample::select(vec![
            "3\r\nabc\r\n",
            "3\r\nabc\r\n",
            "1\r\nx\r\n",
            "0\r\n",
            "\r\n",
            "\n",
            "a",
            "5;e=f\r\n",
            "T: u\r\n",
            "12",
            "3\r\n",
            "abc",
            "0\r\n\r\n",
            " ",
            "\0",
            "ffffffffffffffffff",
        ]);
        let piece = prop_oneof![
            9 => pieces.prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn chunks_in_any_pieces_are_the_chunks_at_once(
            body in any_body(), sizes in prop::collection::vec(1usize..7, 1..20), max in 0u64..40,
        ) {
            let (mut whole, mut content) = (Chunked::default(), Vec::new());
            let at_once = whole.feed(&body, &mut content, max);
            let (mut chunked, mut out, mut at) = (Chunked::default(), Vec::new(), 0);
            let mut in_pieces = Ok((0, false));
            for size in sizes.iter().cycle() {
                let end = body.len().min(at + size);
                in_pieces = chunked.feed(&body[at..end], &mut out, max);
                let Ok((used, has_ended)) = in_pieces else { break };
                at += used;
                in_pieces = Ok((at, has_ended));
                if has_ended || at == body.len() {
                    break;
                }
            }
            prop_assert_eq!(in_pieces, at_once);
            prop_assert!(out.len() as u64 <= max);
            prop_assert_eq!(out, content);
        }

        #[test]
        fn content_comes_out_of_chunks_as_it_went_in(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8),
        ) {
            let mut body: Vec<u8> = parts
                .iter()
                .flat_map(|part| [format!("{:x}\r\n", part.len()).into_bytes(), part.clone(), b"\r\n".to_vec()])
                .flatten()
                .collect();
            body.extend(b"0\r\n\r\n");
            prop_assert_eq!(fed(&body, 1 << 20), Ok((parts.concat(), body.len(), true)));
        }
    }
}
