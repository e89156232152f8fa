//! What a bad disk does to durable bytes: bit rot, writes that went elsewhere, writes that it
//! said were done and were not.
//!
//! Fair damage leaves a trace. A stream whose very last blocks are gone without one looks like a
//! stream that ended there, to any reader of that disk; so a lost or misdirected write always has
//! a later block of its stream behind it. Nor does it take all of what is left of a stream's
//! beginning: without segment 1, which is not always made, such a stream looks trimmed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use super::chance::Chance;
use super::disk::Disk;
use super::segments::{BlockName, Reader, is_first, stream_of};

/// The unit in which writes are lost.
const PAGE: usize = 4096;

/// Does one kind of damage somewhere; says what.
///
/// # Errors
/// When the simulation's own files fail.
pub fn strike(disk: &mut Disk, reader: &Reader, chance: &mut Chance) -> std::io::Result<String> {
    // Digests are spared: what one forgets when its segment is gone is said and not made good.
    let segments = disk.durable().filter(|(path, _)| stream_of(path).is_some());
    let files: Vec<(PathBuf, Vec<u8>)> =
        segments.map(|(path, bytes)| (path.to_owned(), bytes.to_vec())).collect();
    if files.is_empty() {
        return Ok("there is nothing to damage".to_owned());
    }
    let file = &files[chance.below(files.len() as u64) as usize];
    let (path, bytes) = file;
    if chance.one_in(2) {
        disk.rot(path, chance)?;
        return Ok(format!("a bit of {} flips", path.display()));
    }
    let Some(pages) = losable(&files, file, reader, chance) else {
        return Ok("no write can be lost".to_owned());
    };
    let lost = bytes[pages.clone()].to_vec();
    disk.replace(path, pages.start, &vec![0; lost.len()])?;
    if chance.one_in(2) {
        return Ok(format!("bytes {pages:?} of {} were never written", path.display()));
    }
    // Where it went there must be nothing that may not be lost.
    let target = &files[chance.below(files.len() as u64) as usize];
    let (other, _) = target;
    if other == path || stream_of(other) == stream_of(path) {
        return Ok(format!("bytes {pages:?} of {} went where nobody looks", path.display()));
    }
    let Some(place) = losable(&files, target, reader, chance) else {
        return Ok("a write is lost".to_owned());
    };
    let len = lost.len().min(place.len());
    disk.replace(other, place.start, &lost[..len])?;
    Ok(format!("bytes {pages:?} of {} went to {} at {}", path.display(), other.display(), place.start))
}

/// The pages of some block, if no stream ends in them, and none loses all of its beginning.
fn losable(
    files: &[(PathBuf, Vec<u8>)],
    (path, bytes): &(PathBuf, Vec<u8>),
    reader: &Reader,
    chance: &mut Chance,
) -> Option<Range<usize>> {
    let mut ends: BTreeMap<(u32, u16), u64> = BTreeMap::new();
    let places_of = |(path, bytes): &(PathBuf, Vec<u8>)| reader.places_in(path, 0, bytes);
    for (_, (epoch, worker, sequence), _) in files.iter().flat_map(places_of) {
        let end = ends.entry((epoch, worker)).or_default();
        *end = sequence.max(*end);
    }
    let places = reader.places_in(path, 0, bytes);
    if places.is_empty() {
        return None;
    }
    let (block, ..) = &places[chance.below(places.len() as u64) as usize];
    let pages = block.start / PAGE * PAGE..block.end.next_multiple_of(PAGE).min(bytes.len());
    let is_end = |&(epoch, worker, sequence): &BlockName| ends.get(&(epoch, worker)) == Some(&sequence);
    let is_hit = |range: &Range<usize>| range.start < pages.end && pages.start < range.end;
    let ends_there = places.iter().any(|(range, name, _)| is_hit(range) && is_end(name));
    let is_emptied = places.iter().all(|(range, ..)| is_hit(range));
    let is_beginning = is_emptied
        && files.iter().map(|(path, _)| path).filter(|other| stream_of(other) == stream_of(path)).min()
            == Some(path)
        && !is_first(path);
    (!ends_there && !is_beginning).then_some(pages)
}
