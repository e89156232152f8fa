//! `[billing]`: where the books are.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::database::Login;

/// `[billing]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Billing {
    /// The database, as one who is in the role `billing_writer`.
    pub url: String,
    /// A file with the password, for its owner's eyes alone; relative to the config.
    pub password_file: Option<PathBuf>,
    /// The database, as its owner: for `--migrate`; `url` without it.
    pub owner_url: Option<String>,
    /// A file with the owner's password.
    pub owner_password_file: Option<PathBuf>,
}

impl Billing {
    /// Checks the addresses, and takes files as relative to the config.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn settle(&mut self, folder: &Path) -> Result<(), (&'static str, String)> {
        for file in [&mut self.password_file, &mut self.owner_password_file].into_iter().flatten() {
            *file = folder.join(&*file);
        }
        self.login().map_err(|why| ("billing.url", why))?;
        self.owner().map_err(|why| ("billing.owner_url", why))?;
        Ok(())
    }

    /// Who bills.
    ///
    /// # Errors
    /// Why the address cannot be used.
    pub fn login(&self) -> Result<Login, String> {
        Login::of(&self.url, self.password_file.as_deref())
    }

    /// Who makes the tables.
    ///
    /// # Errors
    /// Why the address cannot be used.
    pub fn owner(&self) -> Result<Login, String> {
        match &self.owner_url {
            Some(url) => Login::of(url, self.owner_password_file.as_deref()),
            None => self.login(),
        }
    }
}
