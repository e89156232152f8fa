//! BIRD's control socket: a command a line, answered in lines that begin with a code of four digits.
//!
//! The code is followed by `-` while more lines come, by a space in the last one; a line that begins with a space goes
//! on with the code before. 0 is good, 1 and 2 are tables, 8 and 9 errors. Start reading at [`Connection::tell`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// BIRD answers within a millisecond; one that reads a large config takes longer.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// A line of an answer.
const LINE_BYTES_MAX: u64 = 1024;
/// The lines of an answer to a command for one protocol: one, and the end.
const LINES_MAX: usize = 16;

/// Why BIRD could not be told.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub(super) enum BirdError {
    /// cannot connect to BIRD at {path}: {source}; does it run, and is this user in its group?
    Connect {
        /// Its control socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// BIRD is gone: {0}
    Gone(#[from] std::io::Error),
    /// BIRD did not answer within a second
    Late(#[from] tokio::time::error::Elapsed),
    /// BIRD says {0:?}, which is no answer; is that its control socket?
    Strange(String),
    /// BIRD refused {command:?}: {answer}; is the protocol in its config?
    Refused {
        /// What it was told.
        command: String,
        /// Its answer, with the code.
        answer: String,
    },
}

/// What a protocol of BIRD is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    Enable,
    Disable,
}

impl Switch {
    /// The command for a protocol, without the end of the line.
    pub(super) fn command(self, protocol: &str) -> String {
        let verb = match self {
            Self::Enable => "enable",
            Self::Disable => "disable",
        };
        format!("{verb} {protocol}")
    }

    /// What BIRD answers when it has done so, and when it was so already.
    const fn codes(self) -> (u16, u16) {
        match self {
            Self::Enable => (11, 10),
            Self::Disable => (9, 8),
        }
    }
}

/// A connection to BIRD that was greeted.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    pub(super) async fn open(path: &Path) -> Result<Self, BirdError> {
        let failed = |source| BirdError::Connect { path: path.to_owned(), source };
        let stream = timeout(ANSWER_MAX, UnixStream::connect(path)).await?.map_err(failed)?;
        let mut made = Self { stream: BufReader::new(stream) };
        match made.answer().await?.as_slice() {
            [greeting] if greeting.code == 1 => Ok(made),
            other => Err(BirdError::Strange(text(other))),
        }
    }

    /// Switches a protocol; whether that changed anything.
    pub(super) async fn tell(&mut self, switch: Switch, protocol: &str) -> Result<bool, BirdError> {
        let command = switch.command(protocol);
        timeout(ANSWER_MAX, self.stream.get_mut().write_all(format!("{command}\n").as_bytes())).await??;
        let answer = self.answer().await?;
        let (done, was_so) = switch.codes();
        let has = |code| answer.iter().any(|line| line.code == code);
        match answer.last() {
            Some(Line { code: 0, .. }) if has(done) => Ok(true),
            Some(Line { code: 0, .. }) if has(was_so) => Ok(false),
            _ => Err(BirdError::Refused { command, answer: text(&answer) }),
        }
    }

    /// Ends when BIRD does, or when it says what nobody asked for.
    pub(super) async fn ended(&mut self) -> BirdError {
        match self.stream.fill_buf().await {
            Ok([]) => BirdError::Gone(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(octets) => BirdError::Strange(String::from_utf8_lossy(octets).into_owned()),
            Err(error) => error.into(),
        }
    }

    /// All lines of an answer.
    async fn answer(&mut self) -> Result<Vec<Line>, BirdError> {
        let mut lines: Vec<Line> = Vec::new();
        while lines.len() < LINES_MAX {
            let mut text = String::new();
            let mut bounded = (&mut self.stream).take(LINE_BYTES_MAX);
            if timeout(ANSWER_MAX, bounded.read_line(&mut text)).await?? == 0 {
                return Err(BirdError::Gone(std::io::ErrorKind::UnexpectedEof.into()));
            }
            let before = lines.last().map(|line| line.code);
            let line = Line::parse(&text, before).ok_or(BirdError::Strange(text))?;
            let is_last = line.is_last;
            lines.push(line);
            if is_last {
                return Ok(lines);
            }
        }
        Err(BirdError::Strange(text(&lines)))
    }
}

/// A line of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    code: u16,
    is_last: bool,
    text: String,
}

impl Line {
    /// Reads a line that follows one of this code.
    fn parse(line: &str, before: Option<u16>) -> Option<Self> {
        let line = line.strip_suffix('\n')?;
        if let Some(text) = line.strip_prefix(' ') {
            return Some(Self { code: before?, is_last: false, text: text.to_owned() });
        }
        let (code, rest) = line.split_at_checked(4)?;
        let is_code = code.bytes().all(|octet| octet.is_ascii_digit());
        let text = rest.get(1..)?.to_owned();
        let is_last = match rest.as_bytes()[0] {
            b' ' => true,
            b'-' => false,
            _ => return None,
        };
        is_code.then_some(Self { code: code.parse().ok()?, is_last, text })
    }
}

fn text(lines: &[Line]) -> String {
    let lines = lines.iter().filter(|line| line.code != 0);
    lines.map(|line| format!("{:04} {}", line.code, line.text)).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as BIRD 2.0.12 gives them.
    async fn told(answer: &'static str, switch: Switch) -> Result<bool, BirdError> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(answer.as_bytes()).await.unwrap();
        drop(theirs.shutdown().await);
        let mut connection = Connection { stream: BufReader::new(ours) };
        connection.tell(switch, "weir_v4").await
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn an_answer_says_whether_anything_changed() {
        run(async {
            assert!(told("0011-weir_v4: enabled\n0000 \n", Switch::Enable).await.unwrap());
            assert!(!told("0010-weir_v4: already enabled\n0000 \n", Switch::Enable).await.unwrap());
            assert!(told("0009-weir_v4: disabled\n0000 \n", Switch::Disable).await.unwrap());
            assert!(!told("0008-weir_v4: already disabled\n0000 \n", Switch::Disable).await.unwrap());
        });
    }

    #[test]
    fn what_is_no_success_is_an_error_with_birds_words() {
        run(async {
            let unknown = "9001 syntax error, unexpected CF_SYM_UNDEFINED\n";
            let error = told(unknown, Switch::Enable).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "BIRD refused \"enable weir_v4\": 9001 syntax error, unexpected CF_SYM_UNDEFINED; \
                 is the protocol in its config?"
            );
            let half_done = "0011-weir_v4: enabled\n8003 No protocols match\n";
            for answer in ["0007 Access denied\n", "0009-weir_v4: disabled\n0000 \n", "0000 \n", half_done] {
                let refused = told(answer, Switch::Enable).await;
                assert!(matches!(refused, Err(BirdError::Refused { .. })), "{answer:?}: {refused:?}");
            }
            let endless: &str = Box::leak("0011-more\n".repeat(LINES_MAX + 1).into_boxed_str());
            for strange in ["HTTP/1.1 400\n", "00\n", "0011\n", " goes on with nothing\n", endless] {
                let refused = told(strange, Switch::Enable).await;
                assert!(matches!(refused, Err(BirdError::Strange(_))), "{strange:?}: {refused:?}");
            }
            assert!(matches!(told("", Switch::Enable).await, Err(BirdError::Gone(_))));
        });
    }

    #[test]
    fn a_line_has_a_code_or_goes_on_with_the_one_before() {
        let line = |code, is_last, text: &str| Some(Line { code, is_last, text: text.to_owned() });
        assert_eq!(Line::parse("0001 BIRD 2.0.12 ready.\n", None), line(1, true, "BIRD 2.0.12 ready."));
        assert_eq!(Line::parse("1002-weir_v4    Static\n", None), line(1002, false, "weir_v4    Static"));
        assert_eq!(Line::parse(" and more\n", Some(1002)), line(1002, false, "and more"));
        for no_line in ["", "\n", "0000", "+000 \n", "00é1 x\n", "0000xx\n"] {
            assert_eq!(Line::parse(no_line, None), None, "{no_line:?}");
        }
    }
}
