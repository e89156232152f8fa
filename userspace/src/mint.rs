//! `weir mint`: signed impressions from a key file, as tokens or as whole links, for ads that are few, for trials, and
//! as the example of what an ad server does itself with the SDK.
//!
//! It reads the key, takes sequence numbers, prints, and speaks to no node. The key is never printed.
//!
//! Start reading at [`run`].

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use weir_common::id::{Issuer, KeyId};
use weir_common::siphash::SipKey;
use weir_common::wire::MAX_PRICE_MICROS;
use weir_sdk::{LinkError, LinkTemplate, Minter, Offer, SequenceError, SequenceFile};

use crate::cli::{MintArgs, PRICE_MICROS_MAX};
use crate::config;

const _: () = assert!(PRICE_MICROS_MAX == MAX_PRICE_MICROS, "what may be said is what fits a token");

/// Why nothing was minted, or not all of it printed.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum MintError {
    /// the key file {path}: {reason}
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never what it holds.
        reason: String,
    },
    /// --link: {0}
    Link(#[from] LinkError),
    /// {0}
    Sequence(#[from] SequenceError),
    /// the clock is before 1970, or after 2106; set it
    Clock,
    /// cannot print: {0}; the impressions that are missing are not minted again under the same numbers
    Print(#[from] io::Error),
}

/// Mints and prints, a line each. Numbers are taken before the first line, so whatever happens none is printed by two
/// calls.
///
/// # Errors
/// What is wrong with key, link or sequence file; nothing is printed then. Or that nobody reads what is printed.
pub fn run(args: &MintArgs, out: &mut impl Write) -> Result<(), MintError> {
    let key =
        config::read_secret(&args.key).map_err(|reason| MintError::Key { path: args.key.clone(), reason })?;
    let template = args.link.as_deref().map(LinkTemplate::new).transpose()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| MintError::Clock)?;
    let issued_at_s = match args.issued_at {
        Some(issued_at_s) => issued_at_s,
        None => u32::try_from(now.as_secs()).map_err(|_| MintError::Clock)?,
    };
    let sequence = args.sequence_file.clone().unwrap_or_else(|| beside(&args.key));
    let numbers = SequenceFile::open(&sequence)?.take(args.count, now.as_millis() as u64)?;
    let key = SipKey::from_bytes(key.0);
    let mut minter = Minter::new(Issuer(args.issuer), KeyId(args.key_id), key, numbers.start);
    let offer = offer(args);
    for _ in numbers {
        let token = minter.mint_token(&offer, issued_at_s);
        match &template {
            Some(template) => writeln!(out, "{}", template.fill(&token, &offer))?,
            None => writeln!(out, "{token}")?,
        }
    }
    Ok(out.flush()?)
}

const fn offer(args: &MintArgs) -> Offer {
    Offer {
        ad: args.ad,
        price_micros: args.price_micros,
        campaign: args.campaign,
        creative: args.creative,
        placement: args.placement,
        publisher: args.publisher,
    }
}

/// The sequence file beside a key file.
fn beside(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".sequence");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser as _;
    use weir_common::token::Token;

    use super::*;
    use crate::cli::{Cli, Command};

    const KEY: &str = "000102030405060708090a0b0c0d0e0f";

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("key");
        std::fs::write(&path, format!("{KEY}\n")).expect("key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode");
        folder
    }

    fn mint(folder: &tempfile::TempDir, more: &[&str]) -> Result<Vec<String>, String> {
        let key = folder.path().join("key");
        let usual = ["weir", "mint", "--issuer", "1", "--key-id", "2", "--ad", "7", "--key"];
        let all = usual.iter().copied().chain(key.to_str()).chain(more.iter().copied());
        let Ok(Cli { command: Command::Mint(args) }) = Cli::try_parse_from(all) else {
            return Err("no arguments of mint".to_owned());
        };
        let mut out = Vec::new();
        run(&args, &mut out).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).expect("text").lines().map(str::to_owned).collect())
    }

    #[test]
    fn what_is_minted_is_signed_by_the_key_of_the_file_with_all_that_was_said() {
        let folder = folder();
        let said =
            ["--price-micros", "250000", "--campaign", "3", "--publisher", "6", "--issued-at", "1800000000"];
        let tokens = mint(&folder, &said).expect("minted");
        let click = Token::parse(&tokens[0]).expect("a token").click;
        let key = SipKey::from_bytes(std::array::from_fn(|at| at as u8));
        assert_eq!(click.tag.get(), click.expected_tag(&key));
        let impression = click.impression;
        assert_eq!((impression.issuer(), impression.key()), (Issuer(1), KeyId(2)));
        assert_eq!((impression.issued_at_s(), click.ad.get()), (1_800_000_000, 7));
        assert_eq!((click.price_micros.get(), click.campaign.get(), click.publisher.get()), (250_000, 3, 6));
    }

    #[test]
    fn numbers_count_up_over_calls_and_never_repeat() {
        let folder = folder();
        let mut sequences = Vec::new();
        for count in ["1", "3", "2"] {
            for token in mint(&folder, &["--count", count]).expect("minted") {
                sequences.push(Token::parse(&token).expect("a token").click.impression.sequence());
            }
        }
        let counted: Vec<u64> = (sequences[0]..sequences[0] + 6).collect();
        assert_eq!(sequences, counted);
        assert!(folder.path().join("key.sequence").exists());
    }

    #[test]
    fn a_link_ends_with_the_token_and_a_wrong_one_takes_no_number() {
        let folder = folder();
        let links = mint(&folder, &["--link", "https://clicks.example/c/"]).expect("minted");
        let token = links[0].strip_prefix("https://clicks.example/c/").expect("a link");
        assert!(Token::parse(token).is_ok());
        let before = std::fs::read(folder.path().join("key.sequence")).expect("read");
        assert!(
            mint(&folder, &["--link", "clicks.example"])
                .expect_err("no link")
                .starts_with("--link: a link begins with")
        );
        assert_eq!(std::fs::read(folder.path().join("key.sequence")).expect("read"), before);
    }

    #[test]
    fn a_key_file_that_others_may_read_or_that_holds_no_key_is_refused_and_its_text_not_told() {
        let folder = folder();
        let path = folder.path().join("key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("mode");
        let refused = mint(&folder, &[]).expect_err("readable by all");
        assert!(
            refused.contains("anybody may read it; run `chmod o-rwx ") && !refused.contains(KEY),
            "{refused}"
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode");
        std::fs::write(&path, &KEY[1..]).expect("key");
        let refused = mint(&folder, &[]).expect_err("31 digits");
        assert!(refused.contains("a key is 32 hex digits") && !refused.contains(&KEY[1..]), "{refused}");
        assert!(!folder.path().join("key.sequence").exists());
    }

    #[test]
    fn more_than_the_highest_price_and_no_impression_at_all_are_refused() {
        let folder = folder();
        for wrong in [["--price-micros", "1000000000001"], ["--count", "0"], ["--count", "1000001"]] {
            assert!(mint(&folder, &wrong).is_err(), "{wrong:?}");
        }
    }
}
