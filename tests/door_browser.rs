//! A real browser at the HTTP door: a page that sends a beacon and a `fetch` that outlives it, and a
//! link that is followed to its landing page.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use weir_labs::door::{Door, click_json};
use weir_labs::{Node, NodeFolder};

/// The longest a page may take in a browser that has just been started, on a busy machine.
const PAGE_MAX: Duration = Duration::from_secs(90);

/// The program, if it is here.
fn browser() -> Option<&'static str> {
    let found =
        Command::new("chromium").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: there is no chromium; `cargo xtask setup` installs it");
    }
    found.then_some("chromium")
}

/// Opens a page and gives its text when it has run for a moment.
fn open(program: &str, folder: &NodeFolder, url: &str) -> String {
    let profile = folder.path().join("profile");
    let mut command = Command::new("timeout");
    command.arg(PAGE_MAX.as_secs().to_string()).arg(program);
    // Root has no sandbox of the kernel's to put it in; the pages are our own.
    command.args([
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    command.args(["--virtual-time-budget=5000", "--dump-dom", url]);
    let output = command.output().expect("the browser starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Serves one page to whoever asks, from an origin of its own; its port.
fn serve(page: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut asked = [0; 4096];
            let _whatever_is_asked = stream.read(&mut asked);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: ";
            let _who_is_gone_needs_none = write!(stream, "{head}{}\r\n\r\n{page}", page.len());
        }
    });
    port
}

fn wait_for(node: &mut Node<'_>, accepted: u64) {
    let has =
        |status: &serde_json::Value| status["clicks"]["outcomes"]["accepted"].as_u64() >= Some(accepted);
    node.wait_until("counting what the browser sent", has).expect("clicks of the browser");
}

#[test]
fn a_page_of_another_origin_sends_a_beacon_and_a_fetch_that_are_counted_once() {
    let Some(program) = browser() else { return };
    let door = Door::folder("").expect("folder");
    let mut node = door.folder.start_ready().expect("ready");
    let page = format!(
        "<title>none</title><script>
        const beacon = navigator.sendBeacon('{url}', '{one}');
        fetch('{url}', {{method: 'POST', keepalive: true, body: '{two}', headers: {{'Content-Type': 'application/json'}}}})
            .then(reply => reply.json())
            .then(reply => document.title = `${{beacon}} ${{reply.created}} ${{reply.clicks[0].status}}`)
            .catch(error => document.title = error);
        </script>",
        url = door.url("/v1/clicks"),
        one = click_json(1),
        two = click_json(2),
    );
    let port = serve(page);
    let dom = open(program, &door.folder, &format!("http://localhost:{port}/"));
    assert!(dom.contains("<title>true 1 created</title>"), "{dom}");
    wait_for(&mut node, 2);
    node.drain().expect("drain");
    let status = door.folder.final_status().expect("final status");
    assert_eq!((&status["clicks"]["received"], &status["clicks"]["residual"]), (&2.into(), &0.into()));
}

#[test]
fn a_link_that_is_followed_is_counted_and_ends_at_the_landing_page() {
    let Some(program) = browser() else { return };
    let door = Door::folder("").expect("folder");
    let port = serve("<title>the landing page</title>".to_owned());
    door.lead_to(&format!("http://localhost:{port}/spring?a=1")).expect("catalog");
    let mut node = door.folder.start_ready().expect("ready");
    let token = door.token(1).expect("token");
    let dom = open(program, &door.folder, &door.url(&format!("/v1/click/{token}")));
    assert!(dom.contains("<title>the landing page</title>"), "{dom}");
    wait_for(&mut node, 1);
    node.drain().expect("drain");
    let status = door.folder.final_status().expect("final status");
    assert_eq!(status["clicks"]["outcomes"]["accepted"], 1, "{:#}", status["clicks"]);
}
