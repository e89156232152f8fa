//! The terminal view of running daemons. It looks at each once an interval and asks nothing else: a node that nobody
//! watches does nothing for it.
//!
//! `look.rs` looks, and records and replays looks; `fleet.rs` keeps what was seen of each node, `model.rs` says what
//! two looks tell, `keys.rs` and `ui.rs` are what the viewer chooses, `view` draws it; those are pure. This file is
//! the shell around them: terminal and time.

mod fleet;
mod keys;
mod look;
mod model;
mod ui;
mod view;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::{DefaultTerminal, Frame, Terminal};
use rustix::event::{PollFd, PollFlags, poll};

use crate::cli::TopArgs;
use crate::control::Status;
use fleet::Fleet;
use look::{Eyes, Place, Recorder};

use keys::Key;
use ui::{Next, Ui};
use view::draw_chosen;

pub use model::{CoreFlow, Flow, Model, Node, Verdict, WorkerRates, verdict};
pub use view::{Theme, draw};

/// Columns of a screen that goes to a file or a pipe.
const PLAIN_COLUMNS: u16 = 100;
/// Its rows, beside one for each worker: enough for every reason there is.
const PLAIN_ROWS: u16 = 80;
/// How often `--once` looks at most before it calls a residual that stays a loss.
const LOOKS_MAX: usize = 10;
/// Until a key is pressed, where there is no other look.
const FOR_EVER: Duration = Duration::from_secs(3600);
/// Most nodes at once: each look takes a thread for each, and a screen has not more lines.
const HOSTS_MAX: usize = 64;

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum Error {
    /// {0}
    Silent(String),
    /// the recording {path}: {source}
    Recording {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// {hosts} hosts are more than the {max} that one viewer looks at; give each viewer some of them
    TooManyHosts {
        /// How many were named.
        hosts: usize,
        /// How many there may be.
        max: usize,
    },
    /// cannot use this terminal: {0}; `weir top --once` needs none
    Terminal(#[from] io::Error),
}

/// The status as text, without rates.
#[must_use]
pub fn text(status: &Status) -> String {
    let model = Model::new(status, status.clone(), Duration::ZERO);
    screen_text(&model, PLAIN_COLUMNS, PLAIN_ROWS + model.workers.len() as u16)
}

/// One screen of this size as text, without the blank ends of lines and of the screen.
#[must_use]
pub fn screen_text(model: &Model, columns: u16, rows: u16) -> String {
    text_of(columns, rows, |frame| draw(frame, model, Theme { colours: false }))
}

/// The same of what a viewer has chosen.
fn chosen_text(nodes: &[Node], ui: &Ui, columns: u16, rows: u16) -> String {
    text_of(columns, rows, |frame| draw_chosen(frame, nodes, ui, Theme { colours: false }))
}

fn text_of(columns: u16, rows: u16, draw: impl FnOnce(&mut Frame<'_>)) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(columns, rows));
    let Ok(_) = terminal.draw(draw);
    let buffer = terminal.backend().buffer();
    let cells = buffer.content().chunks(usize::from(columns));
    let lines =
        cells.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned());
    let mut text = String::new();
    let mut blank = 0;
    for line in lines {
        // One blank line is as good as forty.
        blank = if line.is_empty() { blank + 1 } else { 0 };
        if blank < 2 {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

/// Runs `weir top`.
///
/// # Errors
/// When there is nothing to look at, or the terminal cannot be used.
pub fn run(args: &TopArgs) -> Result<ExitCode, Error> {
    if args.once { once(args) } else { watch(args) }
}

fn eyes(args: &TopArgs) -> Result<Eyes, Error> {
    if let Some(path) = &args.replay {
        return Eyes::replay(path).map_err(|source| Error::Recording { path: path.clone(), source });
    }
    let places = match &args.hosts[..] {
        [] => vec![Place::Socket(args.socket.clone())],
        hosts if hosts.len() > HOSTS_MAX => {
            return Err(Error::TooManyHosts { hosts: hosts.len(), max: HOSTS_MAX });
        }
        hosts => hosts.iter().cloned().map(Place::Host).collect(),
    };
    Ok(Eyes::live(places, Duration::from_millis(args.interval_ms)))
}

/// Looks, and writes down what was seen where that is wanted.
struct Watcher<'a> {
    args: &'a TopArgs,
    eyes: Eyes,
    recorder: Option<Recorder>,
    fleet: Fleet,
    at_ms: u64,
}

impl<'a> Watcher<'a> {
    fn new(args: &'a TopArgs) -> Result<Self, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Recording { path, source }
        };
        let open = |path: &PathBuf| Recorder::open(path).map_err(failed(path));
        let recorder = args.record.as_ref().map(open).transpose()?;
        Ok(Self { args, eyes: eyes(args)?, recorder, fleet: Fleet::default(), at_ms: 0 })
    }

    /// Takes a look; false at the end of a recording.
    fn look(&mut self) -> Result<bool, Error> {
        let path = self.args.replay.as_ref().or(self.args.record.as_ref());
        let failed = |source| Error::Recording { path: path.cloned().unwrap_or_default(), source };
        let look = self.eyes.look().map_err(failed)?;
        let Some(first) = look.first() else { return Ok(false) };
        self.at_ms = first.at_ms;
        if let Some(recorder) = &mut self.recorder {
            recorder.write(&look).map_err(failed)?;
        }
        self.fleet.see(look);
        Ok(true)
    }

    /// How long until the next look; none when there is no other.
    fn pause(&self) -> Option<Duration> {
        self.eyes.pause(self.at_ms)
    }
}

fn once(args: &TopArgs) -> Result<ExitCode, Error> {
    let mut watcher = Watcher::new(args)?;
    watcher.look()?;
    if args.replay.is_some() {
        while watcher.look()? {}
    } else {
        for _ in 0..LOOKS_MAX {
            thread::sleep(watcher.pause().unwrap_or_default());
            watcher.look()?;
            let is_in_flight =
                |node: &Node| node.model.as_ref().is_some_and(|it| it.verdict == Verdict::InFlight);
            if !watcher.fleet.nodes.iter().any(is_in_flight) {
                break;
            }
        }
    }
    print_nodes(args, &watcher.fleet.nodes)
}

/// An error where there is one node and it never answered.
fn refuse_silence(nodes: &[Node]) -> Result<(), Error> {
    match nodes {
        [Node { model: None, trouble: Some(trouble), .. }] => Err(Error::Silent(trouble.clone())),
        _ => Ok(()),
    }
}

/// One node as it is; of several a list.
fn print_nodes(args: &TopArgs, nodes: &[Node]) -> Result<ExitCode, Error> {
    refuse_silence(nodes)?;
    match nodes {
        [Node { model: Some(model), .. }] if args.json => {
            println!("{}", serde_json::to_string(model).unwrap_or_default());
        }
        _ if args.json => println!("{}", serde_json::to_string(nodes).unwrap_or_default()),
        [Node { model: Some(model), .. }] => print!("{}", screen_text(model, PLAIN_COLUMNS, PLAIN_ROWS)),
        _ => print!("{}", chosen_text(nodes, &Ui::default(), PLAIN_COLUMNS, PLAIN_ROWS)),
    }
    let is_well = |node: &Node| {
        node.trouble.is_none() && node.model.as_ref().is_none_or(|model| model.verdict != Verdict::Open)
    };
    Ok(if nodes.iter().all(is_well) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn watch(args: &TopArgs) -> Result<ExitCode, Error> {
    if !io::stdout().is_terminal() {
        return Err(Error::Terminal(io::Error::other("this is no terminal")));
    }
    let mut watcher = Watcher::new(args)?;
    watcher.look()?;
    refuse_silence(&watcher.fleet.nodes)?;
    let theme = Theme::from_environment();
    // Restores the terminal when this function ends, or panics: ratatui hooks both.
    let mut terminal = ratatui::try_init()?;
    thread::spawn(end_with_terminal);
    let watched = watch_in(&mut terminal, &mut watcher, theme);
    ratatui::try_restore()?;
    watched.map(|()| ExitCode::SUCCESS)
}

fn watch_in(terminal: &mut DefaultTerminal, watcher: &mut Watcher<'_>, theme: Theme) -> Result<(), Error> {
    let mut ui = Ui::default();
    let mut shown = watcher.fleet.nodes.clone();
    loop {
        let due = Instant::now() + watcher.pause().unwrap_or(FOR_EVER);
        loop {
            terminal.draw(|frame| draw_chosen(frame, &shown, &ui, theme))?;
            let Some(event) = event_until(due)? else { break };
            if let Event::Key(key) = event
                && let Some(key) = key_of(key)
                && ui.press(key, &shown) == Next::Leave
            {
                return Ok(());
            }
        }
        watcher.look()?;
        if !ui.is_frozen {
            shown.clone_from(&watcher.fleet.nodes);
        }
    }
}

/// Ends the program when its terminal is gone. SIGHUP may be ignored, as under nohup, and what reads the keys would
/// then look for them for ever, with a whole core.
fn end_with_terminal() {
    let terminal = io::stdout();
    // Nothing is asked for; that it hung up is told all the same.
    let mut asked = [PollFd::new(&terminal, PollFlags::empty())];
    while poll(&mut asked, None).is_ok_and(|told| told == 0) {}
    std::process::exit(1);
}

/// What the terminal has to say until then: a key, or another size.
fn event_until(due: Instant) -> io::Result<Option<Event>> {
    let left = due.saturating_duration_since(Instant::now());
    if event::poll(left)? { event::read().map(Some) } else { Ok(None) }
}

fn key_of(key: KeyEvent) -> Option<Key> {
    if key.kind != KeyEventKind::Press {
        return None;
    }
    Some(match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Interrupt,
        KeyCode::Char(typed) => Key::Char(typed),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Tab => Key::Tab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
