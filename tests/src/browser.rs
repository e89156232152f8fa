//! A real Chromium, moved by its DevTools protocol: what a page shows at any moment, without loading it anew.
//!
//! The protocol is spoken over a pipe, messages of JSON with a zero octet behind each:
//! <https://chromedevtools.github.io/devtools-protocol/>.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::process::Process;

/// The longest a browser that has just been started may take to answer, on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(90);
/// A page shows what a lab waits for within this.
const WITHIN: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(100);

/// Descriptors 3 and 4 are where Chromium reads and writes the protocol. Root has no sandbox of the kernel's to put it
/// in; the pages are our own.
const START: &str = "exec chromium --remote-debugging-pipe --headless=new --no-sandbox --disable-gpu \
                     --disable-dev-shm-usage --no-first-run --user-data-dir=\"$0\" 3<&0 4>&1 </dev/null >/dev/null";

/// One page in a browser of its own; both are gone when dropped.
#[derive(Debug)]
pub struct Browser {
    // Before the folder, so that nothing is written there any more when it goes.
    _process: Process,
    _folder: tempfile::TempDir,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    calls: u64,
    failures: Vec<String>,
}

fn messages(from: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let read = BufReader::new(from).split(0).map_while(Result::ok);
        let parsed = read.filter_map(|message| serde_json::from_slice(&message).ok());
        // Nobody listens any more when the lab is over.
        parsed.take_while(|message: &Value| sender.send(message.clone()).is_ok()).for_each(drop);
    });
    receiver
}

impl Browser {
    /// Opens a page; none where there is no Chromium, which is said.
    ///
    /// # Errors
    /// When the browser does not start or does not speak.
    pub fn open(url: &str) -> Result<Option<Self>> {
        let found = Command::new("chromium").arg("--version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            println!("skipped: there is no chromium; `cargo xtask setup` installs it");
            return Ok(None);
        }
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        command.args(["-c", START]).arg(folder.path().join("profile"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(folder.path().join("browser.log"))?);
        let mut process = Process::start("the browser", &mut command)?;
        let (to, from) = process.take_pipes().context("the browser has no pipes")?;
        let from = messages(from);
        let mut browser = Self {
            _process: process,
            _folder: folder,
            to,
            from,
            session: None,
            calls: 0,
            failures: Vec::new(),
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", &attach)?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser.call("Runtime.enable", &json!({}))?;
        browser.call("Page.navigate", &json!({"url": url}))?;
        browser.wait_until("document.readyState", |state| state == "complete")?;
        Ok(Some(browser))
    }

    /// Calls a method of the protocol and gives its result.
    ///
    /// # Errors
    /// When the browser refuses or does not answer.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes())?;
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut said =
                self.from.recv_timeout(left).with_context(|| format!("{method} is not answered"))?;
            if said["method"] == "Runtime.exceptionThrown" {
                self.failures.push(said["params"]["exceptionDetails"].to_string());
            }
            if said["id"] == self.calls {
                if said.get("error").is_some() {
                    bail!("{method}: {}", said["error"]);
                }
                return Ok(said["result"].take());
            }
        }
    }

    /// The value of an expression of JavaScript in the page.
    ///
    /// # Errors
    /// When it throws.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({"expression": expression, "returnByValue": true});
        let mut said = self.call("Runtime.evaluate", &asked)?;
        if said.get("exceptionDetails").is_some() {
            bail!("{expression}: {}", said["exceptionDetails"]);
        }
        Ok(said["result"]["value"].take())
    }

    /// Waits until this is so of an expression's value.
    ///
    /// # Errors
    /// When it never is, with what it was last.
    pub fn wait_until(&mut self, expression: &str, mut is_so: impl FnMut(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let value = self.evaluate(expression)?;
            if is_so(&value) {
                return Ok(value);
            }
            if Instant::now() >= deadline {
                bail!("{expression} was {value} to the end");
            }
            std::thread::sleep(TICK);
        }
    }

    /// Presses and lets go of a key that is no character, such as Tab or Enter.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let (code, text) = if key == "Enter" { (13, "\r") } else { (9, "") };
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// Types into what has the focus.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub fn insert(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", &json!({"text": text})).map(drop)
    }

    /// What the page's scripts have thrown and not caught.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }
}
