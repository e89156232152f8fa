//! A node's HTTP door, and clients of it that nobody here wrote: curl, and a plain TCP stream.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_common::id::{Issuer, KeyId};
use weir_common::siphash::SipKey;
use weir_sdk::{Minter, Offer, Token};

use crate::node::NodeFolder;
use crate::port::free_ports;

/// The longest a lab waits for bytes.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The catalog that [`Door::folder`] writes.
const CATALOG: &str = include_str!("../samples/catalog.toml");
/// The page behind the links of [`AD`].
pub const LANDING: &str = "https://shop.example/spring";
/// The ad of the catalog that has a page.
pub const AD: u64 = 42;

/// What curl got.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status of the response.
    pub status: u16,
    /// Its head, as it came.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The statuses of its clicks, in order.
    #[must_use]
    pub fn statuses(&self) -> Vec<String> {
        let json = self.json();
        let clicks = json["clicks"].as_array().into_iter().flatten();
        clicks.map(|click| click["status"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// A field of the head.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let named = |line: &'_ str| -> Option<_> {
            let (own, _) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then_some(())
        };
        let line = self.head.lines().find(|line| named(line).is_some())?;
        line.split_once(':').map(|(_, value)| value.trim())
    }
}

/// The door of a node on loopback.
#[derive(Debug)]
pub struct Door {
    /// The node's folder.
    pub folder: NodeFolder,
    port: u16,
    tls_port: Option<u16>,
}

impl Door {
    /// A folder of a node with a door, a key, and the sample catalog. `keys` are more lines of the
    /// config's section.
    ///
    /// # Errors
    /// When the disk or the network does not give what it needs.
    pub fn folder(keys: &str) -> Result<Self> {
        Self::with(keys, false)
    }

    /// As [`Door::folder`], with HTTPS too: the files `door.pem` and `door.key` are to be made.
    ///
    /// # Errors
    /// When the disk or the network does not give what it needs.
    pub fn with_tls(keys: &str) -> Result<Self> {
        Self::with(keys, true)
    }

    fn with(keys: &str, tls: bool) -> Result<Self> {
        let [port, other] = free_ports()?;
        let tls_port = tls.then_some(other);
        let https = tls_port.map_or_else(String::new, |port| {
            format!("tls_port = {port}\ncertificate_file = \"door.pem\"\nkey_file = \"door.key\"\n")
        });
        let folder = NodeFolder::new(&format!(
            "[admission]\nallow_unsigned = true\n[forward]\ninterval = \"200ms\"\n[rx.http]\nport = {port}\n\
             addresses = [\"127.0.0.1\"]\ncatalog_file = \"catalog.toml\"\n{https}{keys}\n"
        ))?;
        let door = Self { folder, port, tls_port };
        door.lead_to(LANDING)?;
        Ok(door)
    }

    /// Puts another page behind the links of [`AD`], for a node that is not started yet.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn lead_to(&self, landing: &str) -> Result<()> {
        self.folder.write_private("catalog.toml", &CATALOG.replace(LANDING, landing))
    }

    /// The port of plain HTTP.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The port of HTTPS; 0 without.
    #[must_use]
    pub fn tls_port(&self) -> u16 {
        self.tls_port.unwrap_or_default()
    }

    /// Where a path is.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Where a path is by HTTPS, at this name.
    #[must_use]
    pub fn tls_url(&self, name: &str, path: &str) -> String {
        format!("https://{name}:{}{path}", self.tls_port())
    }

    /// A file in the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs curl; an exit that is no success is an error.
    ///
    /// # Errors
    /// When curl is not there or fails.
    pub fn curl(&self, arguments: &[&str]) -> Result<Reply> {
        let place = tempfile::tempdir_in(self.folder.path())?;
        let (body, head) = (place.path().join("body"), place.path().join("head"));
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "30", "--write-out", "%{http_code}"]);
        command.arg("--output").arg(&body).arg("--dump-header").arg(&head).args(arguments);
        let output = command.output().context("curl, which `cargo xtask setup` installs")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "curl {arguments:?}: {} {said}", output.status);
        let status = String::from_utf8_lossy(&output.stdout).trim().parse()?;
        let read = |path| std::fs::read(path).unwrap_or_default();
        Ok(Reply { status, head: String::from_utf8_lossy(&read(head)).into_owned(), body: read(body) })
    }

    /// Posts a body of this type.
    ///
    /// # Errors
    /// As [`Door::curl`].
    pub fn post(&self, content_type: &str, body: &[u8]) -> Result<Reply> {
        self.post_with(content_type, body, &[])
    }

    /// As [`Door::post`], with more arguments.
    ///
    /// # Errors
    /// As there.
    pub fn post_with(&self, content_type: &str, body: &[u8], more: &[&str]) -> Result<Reply> {
        let mut file = tempfile::NamedTempFile::new_in(self.folder.path())?;
        file.write_all(body)?;
        let (content_type, data) =
            (format!("Content-Type: {content_type}"), format!("@{}", file.path().display()));
        let url = self.url("/v1/clicks");
        let mut arguments = vec!["--header", &content_type, "--data-binary", &data];
        arguments.extend(more);
        arguments.push(&url);
        self.curl(&arguments)
    }

    /// A connection of our own, to send what no client would.
    ///
    /// # Errors
    /// When the node does not take it.
    pub fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Sends bytes on a connection of its own, and reads until the node closes it.
    ///
    /// # Errors
    /// When the node does not close it in time.
    pub fn exchange(&self, bytes: &[u8]) -> Result<String> {
        let mut stream = self.connect()?;
        stream.write_all(bytes)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).context("the end of the answer")?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// The token of a fresh impression of the catalog's ad; `sequence` is its own.
    ///
    /// # Errors
    /// When the key's file cannot be read.
    pub fn token(&self, sequence: u64) -> Result<String> {
        let text = std::fs::read_to_string(self.folder.key())?;
        Ok(token(KeyId(1), u128::from_str_radix(text.trim(), 16)?, sequence))
    }
}

/// The token of a fresh impression of the catalog's ad by a key of issuer 1; `sequence` is its own.
#[must_use]
pub fn token(key: KeyId, secret: u128, sequence: u64) -> String {
    let offer = Offer { ad: AD, price_micros: 250_000, ..Offer::default() };
    let mut minter = Minter::new(Issuer(1), key, SipKey::from_bytes(secret.to_be_bytes()), sequence);
    Token::text(&minter.mint(&offer, now_s() - 5)).to_string()
}

/// One click as JSON, whose id is made of this number.
#[must_use]
pub fn click_json(number: u64) -> String {
    format!("{{\"event_id\":\"{number:032x}\",\"ad_id\":\"spring-sale\",\"country\":\"DE\"}}")
}

fn now_s() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as u32)
}
