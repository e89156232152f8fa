//! The compression of a body, undone within a bound.
//!
//! What comes out never exceeds the bound, and nothing larger is allocated on the way, whatever a body says
//! of itself: a small body may say anything. The last byte of the body is the last one of its
//! compression; what follows would be read by nobody, and so is refused.

use std::io::Read;

use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use zstd::zstd_safe::{DCtx, get_frame_content_size};

use super::lz4;
use crate::rx::http::head::Encoding;
use crate::rx::http::problem::Problem;

/// The least that the output grows by. Most bodies are done with one.
const GROWTH_BYTES_MIN: usize = 16 << 10;

/// Decodes one body after the other. To set up the state of zstd takes longer than most bodies: who has many
/// keeps a decoder, of about 100 KiB once zstd was used.
#[derive(Default)]
pub struct Decoder {
    zstd: Option<DCtx<'static>>,
}

impl Decoder {
    /// Appends what `bytes` hold to `out`, at most `max` bytes. On an error `out` is as it was.
    ///
    /// A gzip body is one member, an lz4 body one frame; a zstd body may be several frames (RFC 8878, section
    /// 3). Beside `out`, gzip takes about 50 KiB while it runs, the others nothing.
    ///
    /// # Errors
    /// [`Problem::DecodedTooLarge`], [`Problem::BadEncoding`] when the bytes are damaged, cut off, or followed
    /// by others, and [`Problem::UnsupportedEncoding`].
    pub fn decode(
        &mut self,
        encoding: Encoding,
        bytes: &[u8],
        max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Problem> {
        let start = out.len();
        let result = match encoding {
            Encoding::Identity if bytes.len() > max => Err(Problem::DecodedTooLarge),
            Encoding::Identity => {
                out.extend_from_slice(bytes);
                Ok(())
            }
            Encoding::Gzip => gzip(bytes, max, out),
            Encoding::Zstd => zstd(self.zstd.get_or_insert_default(), bytes, max, out),
            Encoding::Lz4 => lz4::decode(bytes, max, out),
            Encoding::Other => Err(Problem::UnsupportedEncoding),
        };
        if result.is_err() {
            out.truncate(start);
        }
        result
    }
}

/// One member of RFC 1952.
fn gzip(bytes: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), Problem> {
    let mut reader = flate2::bufread::GzDecoder::new(bytes);
    read_bounded(&mut reader, max, out)?;
    if reader.into_inner().is_empty() { Ok(()) } else { Err(Problem::BadEncoding) }
}

/// Reads to the end into at most `max` bytes more of `out`, which grows with what came, never beyond.
fn read_bounded(reader: &mut impl Read, max: usize, out: &mut Vec<u8>) -> Result<(), Problem> {
    let (start, mut end) = (out.len(), out.len());
    loop {
        let room = max - (end - start);
        if end == out.len() && room == 0 {
            let is_more = reader.read(&mut [0]).map_err(|_| Problem::BadEncoding)? > 0;
            return if is_more { Err(Problem::DecodedTooLarge) } else { Ok(()) };
        }
        if end == out.len() {
            let growth = (end - start).max(GROWTH_BYTES_MIN).min(room);
            out.reserve_exact(growth);
            out.resize(end + growth, 0);
        }
        match reader.read(&mut out[end..]).map_err(|_| Problem::BadEncoding)? {
            0 => break,
            len => end += len,
        }
    }
    out.truncate(end);
    Ok(())
}

/// Frames of RFC 8878, straight into the output: no window beside it, whatever size a frame asks for. How much
/// they hold a frame says or not; when it is not enough, all is done again with twice the room.
fn zstd(context: &mut DCtx<'_>, bytes: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), Problem> {
    const TOO_SMALL: usize = (ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as usize).wrapping_neg();
    let start = out.len();
    let said = get_frame_content_size(bytes).map_err(|_| Problem::BadEncoding)?;
    let mut room = match said {
        Some(len) if len > max as u64 => return Err(Problem::DecodedTooLarge),
        Some(len) => len as usize,
        None => GROWTH_BYTES_MIN.max(bytes.len() * 4).min(max),
    };
    loop {
        out.truncate(start);
        out.reserve_exact(room);
        out.resize(start + room, 0);
        match context.decompress(&mut out[start..], bytes) {
            Ok(len) => {
                out.truncate(start + len);
                return Ok(());
            }
            Err(TOO_SMALL) if room < max => room = GROWTH_BYTES_MIN.max(room * 2).min(max),
            Err(TOO_SMALL) => return Err(Problem::DecodedTooLarge),
            Err(_) => return Err(Problem::BadEncoding),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    const ALL: [Encoding; 3] = [Encoding::Gzip, Encoding::Zstd, Encoding::Lz4];

    fn encoded(encoding: Encoding, content: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Gzip => {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                writer.write_all(content).expect("written");
                writer.finish().expect("finished")
            }
            Encoding::Zstd => zstd::bulk::compress(content, 1).expect("compressed"),
            Encoding::Lz4 => framed(lz4_flex::frame::FrameInfo::new(), content),
            Encoding::Identity | Encoding::Other => content.to_vec(),
        }
    }

    fn framed(info: lz4_flex::frame::FrameInfo, content: &[u8]) -> Vec<u8> {
        let mut writer = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
        writer.write_all(content).expect("written");
        writer.finish().expect("finished")
    }

    fn decoded(encoding: Encoding, bytes: &[u8], max: usize) -> Result<Vec<u8>, Problem> {
        let mut out = b"before".to_vec();
        let result = Decoder::default().decode(encoding, bytes, max, &mut out);
        assert!(out.capacity() <= 6 + max.max(64), "{} allocated for at most {max}", out.capacity());
        let content = out.strip_prefix(b"before").expect("appended").to_vec();
        assert!(result.is_ok() || content.is_empty());
        result.map(|()| content)
    }

    /// Words that compress well, but not to nothing, beyond the size of the smallest blocks.
    fn text(len: usize) -> Vec<u8> {
        let words = (0u32..).map(|n| format!("{{\"ad\":{}}} ", n.wrapping_mul(2_654_435_761) >> 20));
        words.flat_map(String::into_bytes).take(len).collect()
    }

    #[test]
    fn what_was_compressed_comes_out_as_it_went_in() {
        for encoding in ALL.into_iter().chain([Encoding::Identity]) {
            for len in [0, 1, 100, 70_000, 400_000] {
                let content = text(len);
                assert_eq!(
                    decoded(encoding, &encoded(encoding, &content), 400_000),
                    Ok(content),
                    "{encoding:?} {len}"
                );
            }
        }
    }

    #[test]
    fn a_decoder_goes_on_after_a_body_that_was_refused() {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        for encoding in ALL {
            let bytes = encoded(encoding, &text(5000));
            for len in [bytes.len() / 2, 10, 0] {
                assert_eq!(
                    decoder.decode(encoding, &bytes[..len], 9000, &mut out),
                    Err(Problem::BadEncoding)
                );
            }
            assert_eq!(decoder.decode(encoding, &bytes, 4999, &mut out), Err(Problem::DecodedTooLarge));
            assert_eq!(decoder.decode(encoding, &bytes, 5000, &mut out), Ok(()));
        }
        assert_eq!(out, text(5000).repeat(3));
    }

    #[test]
    fn what_comes_out_is_bounded_to_the_byte() {
        for encoding in ALL.into_iter().chain([Encoding::Identity]) {
            for len in [1, 5_000, 200_000] {
                let bytes = encoded(encoding, &text(len));
                assert_eq!(
                    decoded(encoding, &bytes, len).map(|content| content.len()),
                    Ok(len),
                    "{encoding:?}"
                );
                assert_eq!(
                    decoded(encoding, &bytes, len - 1),
                    Err(Problem::DecodedTooLarge),
                    "{encoding:?} {len}"
                );
            }
        }
    }

    #[test]
    fn a_bomb_ends_at_the_bound_and_nothing_more_is_allocated() {
        let zeros = vec![0; 64 << 20];
        for encoding in ALL {
            let bomb = encoded(encoding, &zeros);
            assert!(bomb.len() < 300 << 10, "{encoding:?}: {}", bomb.len());
            assert_eq!(decoded(encoding, &bomb, 1 << 20), Err(Problem::DecodedTooLarge), "{encoding:?}");
        }
        let mut stream = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder"); // without its size
        stream.write_all(&zeros).expect("written");
        let bomb = stream.finish().expect("finished");
        assert_eq!(decoded(Encoding::Zstd, &bomb, 1 << 20), Err(Problem::DecodedTooLarge));
    }

    #[test]
    fn a_zstd_stream_that_does_not_say_its_size_is_taken() {
        for len in [0, 10, 300_000] {
            let content = text(len);
            let mut stream = zstd::stream::Encoder::new(Vec::new(), 19).expect("an encoder");
            stream.write_all(&content).expect("written");
            assert_eq!(decoded(Encoding::Zstd, &stream.finish().expect("finished"), 300_000), Ok(content));
        }
    }

    #[test]
    fn several_zstd_frames_are_one_body() {
        let two = [encoded(Encoding::Zstd, b"one"), encoded(Encoding::Zstd, &text(90_000))].concat();
        assert_eq!(decoded(Encoding::Zstd, &two, 100_000), Ok([b"one".to_vec(), text(90_000)].concat()));
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        for encoding in ALL {
            for garbage in [&b"\0"[..], b"garbage", &[0; 64]] {
                let bytes = [&encoded(encoding, b"content"), garbage].concat();
                assert_eq!(
                    decoded(encoding, &bytes, 100),
                    Err(Problem::BadEncoding),
                    "{encoding:?} {garbage:?}"
                );
            }
        }
        for encoding in [Encoding::Gzip, Encoding::Lz4] {
            let bytes = [encoded(encoding, b"one"), encoded(encoding, b"two")].concat();
            assert_eq!(decoded(encoding, &bytes, 100), Err(Problem::BadEncoding), "{encoding:?} twice");
        }
    }

    #[test]
    fn a_body_cut_off_anywhere_is_refused() {
        for encoding in ALL {
            let bytes = encoded(encoding, &text(150_000));
            let step = 1 + bytes.len() / 500;
            for len in (0..bytes.len()).step_by(step).chain(bytes.len() - 20..bytes.len()) {
                assert_eq!(
                    decoded(encoding, &bytes[..len], 1 << 20),
                    Err(Problem::BadEncoding),
                    "{encoding:?} {len}"
                );
            }
        }
    }

    #[test]
    fn lz4_frames_of_all_kinds_are_taken() {
        use lz4_flex::frame::{BlockMode, BlockSize, FrameInfo};
        let content = text(700_000);
        for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
            for mode in [BlockMode::Independent, BlockMode::Linked] {
                for has_checks in [false, true] {
                    let info = FrameInfo::new().block_size(size).block_mode(mode);
                    let info = info.block_checksums(has_checks).content_checksum(has_checks);
                    let info = info.content_size(has_checks.then_some(700_000));
                    let bytes = framed(info, &content);
                    assert_eq!(
                        decoded(Encoding::Lz4, &bytes, 700_000).as_ref(),
                        Ok(&content),
                        "{size:?} {mode:?}"
                    );
                }
            }
        }
        let noise = (0u64..9000).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32);
        let noise: Vec<u8> = noise.flat_map(u32::to_le_bytes).collect();
        assert_eq!(decoded(Encoding::Lz4, &framed(FrameInfo::new(), &noise), 40_000), Ok(noise), "stored");
    }

    #[test]
    fn an_lz4_descriptor_that_is_damaged_lies_or_wants_more_is_refused() {
        let sound = framed(lz4_flex::frame::FrameInfo::new().content_size(Some(7)), b"content");
        assert_eq!(decoded(Encoding::Lz4, &sound, 100), Ok(b"content".to_vec()));
        // a size that is another, larger blocks, no version, reserved bits, a dictionary
        for (at, bits) in [(6, 1), (5, 0x10), (4, 0x40), (4, 0x80), (4, 2), (5, 1), (5, 0x80), (4, 1)] {
            let mut bytes = sound.clone();
            bytes[at] ^= bits;
            assert_eq!(
                decoded(Encoding::Lz4, &bytes, 100),
                Err(Problem::BadEncoding),
                "byte {at} by {bits:#x}"
            );
            let is_harmless = (at, bits) == (5, 0x10);
            bytes[14] = (twox_hash::xxhash32::Hasher::oneshot(0, &bytes[4..14]) >> 8) as u8;
            assert_eq!(
                decoded(Encoding::Lz4, &bytes, 100).is_ok(),
                is_harmless,
                "byte {at} by {bits:#x}, signed"
            );
        }
        let other_magic = [&[0x02, 0x21, 0x4c, 0x18], &sound[4..]].concat();
        assert_eq!(decoded(Encoding::Lz4, &other_magic, 100), Err(Problem::BadEncoding));
    }

    #[test]
    fn a_damaged_lz4_frame_is_refused_by_its_checksums() {
        use lz4_flex::frame::FrameInfo;
        let content = text(2000);
        let of_content = FrameInfo::new().content_checksum(true);
        // that of a block says nothing of the block's size, the first word after the descriptor
        let of_blocks = FrameInfo::new().block_checksums(true);
        for (info, from, can_be_same) in [(of_content, 0, true), (of_blocks, 11, false)] {
            let bytes = framed(info, &content);
            for at in from..bytes.len() {
                for bit in [0x01, 0x80] {
                    let mut damaged = bytes.clone();
                    damaged[at] ^= bit;
                    // a match may point to another place with the same bytes: that damages nothing
                    let result = decoded(Encoding::Lz4, &damaged, 1 << 20);
                    assert!(result.is_err() || can_be_same && result.as_ref() == Ok(&content), "byte {at}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused_within_the_bound(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200), len in 0usize..3000, at in 0usize..200,
            bit in 0u8..8, which in 0usize..3, max in 0usize..4000,
        ) {
            let _ = decoded(ALL[which], &bytes, max);
            bytes = encoded(ALL[which], &text(len));
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let _ = decoded(ALL[which], &bytes, max);
        }
    }
}
