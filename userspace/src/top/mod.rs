//! The terminal view of a running daemon. It looks at the status socket once an interval and
//! asks nothing else: a node that nobody watches does nothing for it.
//!
//! `model.rs` says what two looks tell, `view.rs` draws it; both are pure. This file is the shell
//! around them: socket, terminal and keys.

mod model;
mod view;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::cli::TopArgs;
use crate::control::{ClientError, Status, fetch};

pub use model::{Flow, Model, Verdict, WorkerRates, verdict};
pub use view::{Theme, draw};

/// Columns of a screen that goes to a file or a pipe.
const PLAIN_COLUMNS: u16 = 100;
/// Its rows, beside one for each worker: enough for every reason there is.
const PLAIN_ROWS: u16 = 80;
/// How often `--once` looks at most before it calls a residual that stays a loss.
const LOOKS_MAX: usize = 10;

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum Error {
    /// {0}
    Client(#[from] ClientError),
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
    let backend = TestBackend::new(columns, rows);
    let Ok(mut terminal) = Terminal::new(backend);
    let Ok(_) = terminal.draw(|frame| draw(frame, model, Theme { colours: false }));
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
/// When no daemon answers, or the terminal cannot be used.
pub fn run(args: &TopArgs) -> Result<ExitCode, Error> {
    if args.once { Ok(once(args)?) } else { watch(args) }
}

fn once(args: &TopArgs) -> Result<ExitCode, ClientError> {
    let interval = Duration::from_millis(args.interval_ms);
    let mut before = fetch(&args.socket)?;
    let mut model = look(args, &before, interval)?;
    for _ in 1..LOOKS_MAX {
        if model.verdict != Verdict::InFlight {
            break;
        }
        before = model.status;
        model = look(args, &before, interval)?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&model).unwrap_or_default());
    } else {
        print!("{}", screen_text(&model, PLAIN_COLUMNS, PLAIN_ROWS));
    }
    Ok(if model.verdict == Verdict::Open { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn look(args: &TopArgs, before: &Status, interval: Duration) -> Result<Model, ClientError> {
    let started = Instant::now();
    thread::sleep(interval);
    let now = fetch(&args.socket)?;
    Ok(Model::new(before, now, started.elapsed()))
}

fn watch(args: &TopArgs) -> Result<ExitCode, Error> {
    if !io::stdout().is_terminal() {
        return Err(Error::Terminal(io::Error::other("this is no terminal")));
    }
    let mut before = fetch(&args.socket)?;
    let theme = Theme::from_environment();
    // Restores the terminal when this function ends, or panics: ratatui hooks both.
    let mut terminal = ratatui::try_init()?;
    let watched = (|| -> Result<(), Error> {
        let mut model = Model::new(&before, before.clone(), Duration::ZERO);
        loop {
            terminal.draw(|frame| draw(frame, &model, theme))?;
            let looked = Instant::now();
            if quits_within(Duration::from_millis(args.interval_ms))? {
                return Ok(());
            }
            let now = fetch(&args.socket)?;
            model = Model::new(&before, now.clone(), looked.elapsed());
            before = now;
        }
    })();
    ratatui::try_restore()?;
    watched.map(|()| ExitCode::SUCCESS)
}

/// Waits for so long; true when the user wants to leave.
fn quits_within(interval: Duration) -> io::Result<bool> {
    let until = Instant::now() + interval;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if !event::poll(left)? {
            return Ok(false);
        }
        let Event::Key(key) = event::read()? else { continue };
        let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        if key.kind == KeyEventKind::Press
            && (control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
        {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn fixed(name: &str) -> Status {
        let path = folder().join(name);
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    fn folder() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/top/fixed")
    }

    /// Compares with the stored screen; `WEIR_BLESS=1` stores what is drawn now.
    #[track_caller]
    fn check(model: &Model, columns: u16, rows: u16, name: &str) {
        let drawn = screen_text(model, columns, rows);
        let path = folder().join(name);
        if std::env::var_os("WEIR_BLESS").is_some() {
            fs::write(&path, &drawn).unwrap();
        }
        assert_eq!(drawn, fs::read_to_string(&path).unwrap(), "{name} is drawn otherwise");
    }

    fn model() -> Model {
        Model::new(&fixed("before.json"), fixed("now.json"), Duration::from_secs(2))
    }

    #[test]
    fn a_full_screen_shows_ledger_workers_outcomes_and_reasons() {
        check(&model(), 80, 24, "screen-80x24.txt");
    }

    #[test]
    fn a_small_screen_keeps_the_ledger_and_the_latencies() {
        check(&model(), 60, 16, "screen-60x16.txt");
    }

    #[test]
    fn books_that_do_not_close_are_said_so_in_words_and_in_red() {
        let mut now = fixed("now.json");
        now.clicks.residual = -3;
        let model = Model::new(&fixed("before.json"), now, Duration::from_secs(2));
        assert!(screen_text(&model, 80, 24).contains("residual -3 NOT CLOSED"));
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &model, Theme { colours: true })).unwrap();
        let red =
            terminal.backend().buffer().content().iter().filter(|cell| cell.fg == ratatui::style::Color::Red);
        assert_eq!(red.map(|cell| cell.symbol()).collect::<String>(), "residual -3NOT CLOSED");
    }

    #[test]
    fn a_disk_that_fails_is_named_with_what_became_of_it() {
        let mut now = fixed("now.json");
        let screen =
            |now: &Status| screen_text(&Model::new(now, now.clone(), Duration::from_secs(1)), 100, 30);
        assert!(!screen(&now).contains("journal:"));
        now.journal.state = crate::stats::JournalHealth::Halted;
        now.journal.last_failure = Some("fdatasync of a segment failed: Input/output error".to_owned());
        now.forward.last_error = Some("No space left on device".to_owned());
        let drawn = screen(&now);
        assert!(
            drawn.contains("journal HALTED: clicks are told to retry until a restart: fdatasync"),
            "{drawn}"
        );
        assert!(drawn.ends_with("forward FAILING: No space left on device\n"), "{drawn}");
        now.journal.state = crate::stats::JournalHealth::NoSpace;
        assert!(screen(&now).contains("journal NO SPACE: clicks are or will be told to retry: fdatasync"));
    }

    #[test]
    fn without_colours_no_cell_has_one() {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &model(), Theme { colours: false })).unwrap();
        let reset = ratatui::style::Color::Reset;
        assert!(
            terminal.backend().buffer().content().iter().all(|cell| cell.fg == reset && cell.bg == reset)
        );
    }

    #[test]
    fn many_workers_leave_room_for_the_outcomes() {
        let mut now = fixed("now.json");
        now.workers = vec![now.workers[0].clone(); 64];
        let screen = screen_text(&Model::new(&now.clone(), now, Duration::from_secs(1)), 80, 24);
        assert!(screen.contains("and 57 more workers\n") && screen.contains("\nmalformed "), "{screen}");
        assert!(screen.contains("ack      p50"), "{screen}");
    }

    #[test]
    fn any_size_is_drawn_without_panic() {
        for (columns, rows) in [(1, 1), (20, 5), (60, 1), (300, 100)] {
            let _ = screen_text(&model(), columns, rows);
        }
    }
}
