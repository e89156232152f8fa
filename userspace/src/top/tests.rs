//! Screens as they are drawn, held against stored ones.

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

#[track_caller]
fn check(model: &Model, columns: u16, rows: u16, name: &str) {
    stored(&screen_text(model, columns, rows), name);
}

/// Compares with the stored screen; `WEIR_BLESS=1` stores what is drawn now.
#[track_caller]
fn stored(drawn: &str, name: &str) {
    let path = folder().join(name);
    if std::env::var_os("WEIR_BLESS").is_some() {
        fs::write(&path, drawn).unwrap();
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
    let screen = |now: &Status| screen_text(&Model::new(now, now.clone(), Duration::from_secs(1)), 100, 30);
    assert!(!screen(&now).contains("journal:"));
    now.journal.state = crate::stats::JournalHealth::Halted;
    now.journal.last_failure = Some("fdatasync of a segment failed: Input/output error".to_owned());
    now.forward.last_error = Some("No space left on device".to_owned());
    let drawn = screen(&now);
    assert!(drawn.contains("journal HALTED: clicks are told to retry until a restart: fdatasync"), "{drawn}");
    assert!(drawn.ends_with("forward FAILING: No space left on device\n"), "{drawn}");
    now.journal.state = crate::stats::JournalHealth::NoSpace;
    assert!(screen(&now).contains("journal NO SPACE: clicks are or will be told to retry: fdatasync"));
}

#[test]
fn without_colours_no_cell_has_one() {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, &model(), Theme { colours: false })).unwrap();
    let reset = ratatui::style::Color::Reset;
    assert!(terminal.backend().buffer().content().iter().all(|cell| cell.fg == reset && cell.bg == reset));
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

fn node(name: &str) -> Node {
    Node { name: name.to_owned(), model: Some(model()), trouble: None }
}

/// The screen after these keys, 80 by 24.
fn pressed(nodes: &[Node], keys: &[Key]) -> String {
    let mut ui = Ui::default();
    for &key in keys {
        let _ = ui.press(key, nodes);
    }
    chosen_text(nodes, &ui, 80, 24)
}

#[track_caller]
fn check_pressed(nodes: &[Node], keys: &[Key], name: &str) {
    stored(&pressed(nodes, keys), name);
}

#[test]
fn each_view_has_its_key_and_is_readable_at_80x24() {
    for (digit, view) in ('1'..).zip(ui::View::ALL) {
        let name = view.name().to_lowercase();
        check_pressed(&[node("pop-1")], &[Key::Char(digit)], &format!("{name}-80x24.txt"));
    }
}

#[test]
fn the_selected_reason_is_explained() {
    check_pressed(
        &[node("pop-1")],
        &[Key::Char('3'), Key::Down, Key::Down, Key::Down],
        "drops-fourth-80x24.txt",
    );
}

#[test]
fn beyond_the_last_line_there_is_none_to_select() {
    let nodes = [node("pop-1")];
    let after = |downs: usize, ups: usize| {
        pressed(&nodes, &[vec![Key::Char('3')], vec![Key::Down; downs], vec![Key::Up; ups]].concat())
    };
    let last = model().reasons.len() - 1;
    assert_eq!(after(100, 1), after(last - 1, 0));
    assert_ne!(after(100, 1), after(100, 0));
}

#[test]
fn a_filter_and_a_held_picture_are_seen() {
    let typed = "/bad_".chars().map(Key::Char);
    let keys: Vec<_> =
        [Key::Char('3')].into_iter().chain(typed).chain([Key::Enter, Key::Char('f')]).collect();
    let screen = pressed(&[node("pop-1")], &keys);
    assert!(screen.contains("bad_tag") && !screen.contains("expired"), "{screen}");
    assert!(screen.contains(" FROZEN /bad_ "), "{screen}");
}

#[test]
fn the_help_names_every_key() {
    check_pressed(&[node("pop-1")], &[Key::Char('?')], "help-80x24.txt");
}

#[test]
fn of_several_nodes_each_has_its_line_and_who_is_silent_says_so() {
    let mut halted = node("pop-2");
    halted.model.as_mut().unwrap().status.journal.state = crate::stats::JournalHealth::Halted;
    let silent =
        Node { name: "pop-3".to_owned(), model: None, trouble: Some("pop-3:9464: refused".to_owned()) };
    let nodes = [node("pop-1"), halted, silent];
    check_pressed(&nodes, &[], "nodes-80x24.txt");
    let screen = pressed(&nodes, &[Key::Tab, Key::Tab, Key::Char('4')]);
    assert!(screen.starts_with("pop-3 DOES NOT ANSWER: pop-3:9464: refused"), "{screen}");
}

#[test]
fn a_node_that_is_not_ready_says_why_its_addresses_should_be_withdrawn() {
    let mut node = node("pop-1");
    let readiness = crate::control::readiness::Readiness::of(
        crate::control::State::Draining,
        crate::withdrawal::Withdrawal::None,
        crate::stats::JournalHealth::Running,
        None,
    );
    node.model.as_mut().unwrap().status.readiness = readiness;
    let screen = pressed(&[node], &[Key::Char('6')]);
    assert!(screen.contains("NOT READY") && screen.contains("[-] state    draining"), "{screen}");
}

#[test]
fn every_view_of_any_size_is_drawn_without_panic() {
    for (columns, rows) in [(1, 1), (20, 5), (60, 1), (80, 24), (300, 100)] {
        for view in ui::View::ALL {
            let ui = Ui { view, selected: 1_000, ..Ui::default() };
            for nodes in [&[][..], &[node("a")], &[node("a"), node("b")]] {
                let _ = chosen_text(nodes, &ui, columns, rows);
            }
        }
    }
}
