//! The way to PostgreSQL: who is connected to and how, and the tables that have to be there.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};

use super::run::sha256;

/// A server that is there answers within this.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// What holds for a session. A commit is on the disk when it is told. Another run of the day is waited for as long as a
/// large one takes; no statement takes longer; and a program that hangs gives the day back.
const SESSION: &str = "SET synchronous_commit = on; SET lock_timeout = '60s'; SET statement_timeout = '600s'; \
                       SET idle_in_transaction_session_timeout = '600s'";

/// What makes the tables, in order. A file that was applied somewhere is never changed; another follows it.
const MIGRATIONS: [&str; 1] = [include_str!("../../../deploy/postgres/0001_books.sql")];

/// Of advisory locks: that of migrations, beside those of days, of which none is so far away.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(2003134834, -2147483648)";

/// Why the database cannot be used.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum DatabaseError {
    /// the database at {place} cannot be reached: {why}
    Away {
        /// Where.
        place: String,
        /// Why.
        why: String,
    },
    /// the password file {path} cannot be read: {source}
    Password {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// the database refuses: {0}
    Refused(String),
    /// the tables are not there, or not all: run `weir-central bill --migrate`
    NotMigrated,
    /// the tables are those of a newer weir-central; bill with that one
    Newer,
    /// migration {0} of the tables is not the one this program has; bill with the program that made them
    Foreign(i32),
}

impl From<tokio_postgres::Error> for DatabaseError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Refused(explain(&error))
    }
}

/// What an error says with all its causes: the first one alone says nothing.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(found) = cause {
        let _ = write!(text, ": {found}"); // a String takes all
        cause = found.source();
    }
    text
}

/// Who logs in where.
#[derive(Clone, Debug)]
pub struct Login {
    config: Config,
    password_file: Option<PathBuf>,
}

impl Login {
    /// Checks an address as `postgresql://user@127.0.0.1/database` or
    /// `postgresql://user@/database?host=/run/postgresql`.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn of(url: &str, password_file: Option<&Path>) -> Result<Self, String> {
        let mut config = Config::from_str(url).map_err(|error| explain(&error))?;
        if config.get_password().is_some() {
            return Err(
                "has a password in it, which everybody who reads the config sees; put it into password_file"
                    .into(),
            );
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("names no host; 127.0.0.1, or host=/run/postgresql for a socket".into());
        }
        let is_near = |host: &Host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
        };
        let are_near =
            config.get_hosts().iter().all(is_near) && config.get_hostaddrs().iter().all(IpAddr::is_loopback);
        if !are_near || config.get_ssl_mode() == SslMode::Require {
            let why = "TLS to a database is not built in, so only a socket's folder (host=/run/postgresql) or an address \
                       of loopback (127.0.0.1, ::1) is connected to; forward a port to any other, by ssh or stunnel";
            return Err(why.into());
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_WITHIN);
        }
        config.ssl_mode(SslMode::Disable).application_name("weir-central");
        Ok(Self { config, password_file: password_file.map(Path::to_owned) })
    }

    /// Connects.
    ///
    /// # Errors
    /// When there is no password, no server, or no way in.
    pub async fn connect(&self) -> Result<Client, DatabaseError> {
        let mut config = self.config.clone();
        if let Some(path) = &self.password_file {
            let read = std::fs::read_to_string(path);
            let read = read.map_err(|source| DatabaseError::Password { path: path.clone(), source })?;
            config.password(read.trim_end_matches(['\r', '\n']));
        }
        let away =
            |error: tokio_postgres::Error| DatabaseError::Away { place: self.place(), why: explain(&error) };
        let (client, connection) = config.connect(NoTls).await.map_err(away)?;
        tokio::spawn(async move { _ = connection.await }); // what it fails with, each statement does too
        client.batch_execute(SESSION).await?;
        Ok(client)
    }

    fn place(&self) -> String {
        let name = |host: &Host| match host {
            Host::Unix(folder) => folder.display().to_string(),
            Host::Tcp(name) => name.clone(),
        };
        let hosts: Vec<_> = self.config.get_hosts().iter().map(name).collect();
        let ports: Vec<_> = self.config.get_ports().iter().map(u16::to_string).collect();
        format!("{} {}", hosts.join(","), ports.join(",")).trim_end().to_owned()
    }
}

/// The migrations that were applied, with their checksums, in order.
async fn applied(client: &impl tokio_postgres::GenericClient) -> Result<Vec<(i32, String)>, DatabaseError> {
    let there = client.query_one("SELECT to_regclass('billing.migrations') IS NOT NULL", &[]).await?;
    if !there.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = client.query("SELECT number, sha256 FROM billing.migrations ORDER BY number", &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// How many of ours were applied. Pure: `applied` says what was.
fn known(applied: &[(i32, String)]) -> Result<usize, DatabaseError> {
    for (index, (number, checksum)) in applied.iter().enumerate() {
        let ours = MIGRATIONS.get(index).ok_or(DatabaseError::Newer)?;
        if *number != index as i32 + 1 || *checksum != sha256(ours.as_bytes()) {
            return Err(DatabaseError::Foreign(*number));
        }
    }
    Ok(applied.len())
}

/// Whether the tables are those of this program.
///
/// # Errors
/// When they are not.
pub async fn check(client: &Client) -> Result<(), DatabaseError> {
    let all = known(&applied(client).await?)? == MIGRATIONS.len();
    all.then_some(()).ok_or(DatabaseError::NotMigrated)
}

/// Applies what was not applied yet, all or nothing. Returns how many files that were.
///
/// # Errors
/// When the tables are another program's, or the database refuses.
pub async fn migrate(client: &mut Client) -> Result<usize, DatabaseError> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(MIGRATION_LOCK).await?;
    let there = known(&applied(&transaction).await?)?;
    for (index, text) in MIGRATIONS.iter().enumerate().skip(there) {
        transaction.batch_execute(text).await?;
        let enter = "INSERT INTO billing.migrations (number, sha256) VALUES ($1, $2)";
        transaction.execute(enter, &[&(index as i32 + 1), &sha256(text.as_bytes())]).await?;
    }
    transaction.commit().await?;
    Ok(MIGRATIONS.len() - there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_connected_to_and_no_password_stands_in_an_address() {
        for good in [
            "postgresql://weir@127.0.0.1:5433/billing",
            "postgresql://weir@[::1]/billing",
            "postgresql://weir@/billing?host=/run/postgresql",
            "postgresql:///billing?host=/run/postgresql&user=weir",
        ] {
            assert!(Login::of(good, None).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("postgresql://weir@db.example/billing", "TLS"),
            ("postgresql://weir@localhost/billing", "TLS"),
            ("postgresql://weir@10.0.0.1/billing", "TLS"),
            ("postgresql://weir@127.0.0.1/billing?hostaddr=10.0.0.1", "TLS"),
            ("postgresql://weir@127.0.0.1,10.0.0.1/billing", "TLS"),
            ("postgresql://weir@127.0.0.1/billing?sslmode=require", "TLS"),
            ("postgresql://weir:secret@127.0.0.1/billing", "password_file"),
            ("postgresql://weir@/billing", "names no host"),
            ("mysql://weir@127.0.0.1/billing", "invalid"),
        ] {
            let refused = Login::of(bad, None).map(drop).unwrap_err();
            assert!(refused.contains(why) && !refused.contains("secret"), "{bad}: {refused}");
        }
    }

    #[test]
    fn tables_of_a_newer_or_another_program_are_not_touched() {
        let ours = (1, sha256(MIGRATIONS[0].as_bytes()));
        assert_eq!(known(&[]).unwrap(), 0);
        assert_eq!(known(std::slice::from_ref(&ours)).unwrap(), 1);
        assert!(matches!(known(&[ours.clone(), (2, String::new())]), Err(DatabaseError::Newer)));
        assert!(matches!(known(&[(1, "0".repeat(64))]), Err(DatabaseError::Foreign(1))));
        assert!(matches!(known(&[(2, ours.1)]), Err(DatabaseError::Foreign(2))));
    }
}
