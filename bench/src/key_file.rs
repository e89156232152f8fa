//! The key that clicks are signed with, as a file has it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use weir_common::siphash::SipKey;

/// Who signs.
#[derive(Clone, Debug, clap::Args)]
pub struct KeyArgs {
    /// File with the signing key: 16 bytes, or 32 hexadecimal digits
    #[arg(long)]
    pub key_file: PathBuf,
    /// The issuer's number
    #[arg(long, default_value_t = 1)]
    pub issuer: u16,
    /// The key's number
    #[arg(long, default_value_t = 1)]
    pub key: u16,
}

/// Reads a key: 16 raw bytes, or 32 hexadecimal digits with white space around them.
///
/// # Errors
/// The file cannot be read, or holds something else than such a key.
pub fn read_key(path: &Path) -> anyhow::Result<SipKey> {
    let bytes =
        std::fs::read(path).with_context(|| format!("cannot read the key file {}", path.display()))?;
    if let Ok(raw) = <[u8; 16]>::try_from(bytes.as_slice()) {
        return Ok(SipKey::from_bytes(raw));
    }
    let text = String::from_utf8_lossy(&bytes);
    let digits = text.trim();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        bail!("{} holds neither 16 bytes nor 32 hexadecimal digits", path.display());
    }
    let value = u128::from_str_radix(digits, 16).context("hexadecimal key")?;
    Ok(SipKey::from_bytes(value.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_holds_raw_bytes_or_digits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, [7_u8; 16]).unwrap();
        assert_eq!(read_key(&path).unwrap(), SipKey::from_bytes([7; 16]));
        std::fs::write(&path, "000102030405060708090a0b0c0d0e0f\n").unwrap();
        let counting: [u8; 16] = std::array::from_fn(|at| at as u8);
        assert_eq!(read_key(&path).unwrap(), SipKey::from_bytes(counting));
        std::fs::write(&path, "too short").unwrap();
        assert!(read_key(&path).is_err());
    }
}
