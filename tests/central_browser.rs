//! The page of the central tier in a real browser, over a real Apache Kafka: it shows what is answered, changes by
//! itself, and says so when it cannot.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use weir_central::alert::series::{Series, Window};
use weir_central::config::Alerts;
use weir_central::store::Store;
use weir_common::time::Minute;
use weir_labs::browser::Browser;
use weir_labs::central::{Central, CentralFolder, Truth};
use weir_labs::{Generator, Load, NodeFolder, kafka, now_ms};

/// What the page shows of an ad.
const AD_SHOWN: &str = "document.getElementById('ad-figures').hidden ? null \
                        : document.getElementById('sum-clicks').textContent.replaceAll(',', '')";

fn text_of(id: &str) -> String {
    format!("document.getElementById('{id}').textContent")
}

fn send(folder: &NodeFolder, seed: u64) -> PathBuf {
    let load = Load { profile: "demo", rate: 2000, duration: Duration::from_secs(2), seed };
    let generator = Generator::start(folder, load).expect("generator");
    generator.finish(Duration::from_secs(90)).expect("generator").1
}

fn wait_until_counted(central: &mut Central<'_>) {
    central.wait_until_counted(1, now_ms()).expect("counted");
}

/// A node and a central tier that belong together; none where there is no Kafka.
fn folders() -> Option<(NodeFolder, CentralFolder)> {
    let (bootstrap, prefix) = (kafka::shared()?, kafka::fresh_prefix());
    let folder = NodeFolder::forwarding(bootstrap, &prefix, 1).expect("folder");
    Some((folder, CentralFolder::new(bootstrap, &prefix, "").expect("folder")))
}

/// The busiest ad, as it is answered.
fn busiest(central: &Central<'_>) -> String {
    let top = central.ask("/v1/stats/top").expect("answer");
    top["data"][0]["ad_id"].as_str().expect("an ad").to_owned()
}

/// The clicks of the windows that the page shows, as they are answered.
fn clicks(central: &Central<'_>, ad: &str) -> u64 {
    let answer = central.ask(&format!("/v1/stats?ad_id={ad}&window=5m")).expect("answer");
    let points = answer["data"].as_array().expect("windows").iter();
    points.map(|point| point["click_count"].as_u64().expect("a number")).sum()
}

/// Waits until the page shows these clicks of its ad.
fn wait_for(page: &mut Browser, clicks: u64) {
    let clicks_shown = clicks.to_string();
    page.wait_until(AD_SHOWN, |shown| *shown == clicks_shown.as_str()).expect("the ad's clicks");
}

#[test]
fn the_page_shows_what_is_answered_and_changes_by_itself_when_more_clicks_come() {
    let Some((folder, central_folder)) = folders() else { return };
    let mut central = central_folder.start().expect("central");
    let node = folder.start_ready().expect("ready");
    send(&folder, 101);
    wait_until_counted(&mut central);
    let url = format!("http://127.0.0.1:{}/", central_folder.port());
    let Some(mut page) = Browser::open(&url).expect("browser") else { return };

    // The busiest ad is picked by its button.
    let ad = busiest(&central);
    let button = "document.querySelector('#top-rows button')";
    page.wait_until(&format!("{button}?.textContent"), |shown| *shown == ad).expect("the busiest ad");
    page.evaluate("document.getElementById('window').value = '5m', window.isTheSame = true").expect("set");
    page.evaluate(&format!("{button}.click()")).expect("clicked");
    let before = clicks(&central, &ad);
    wait_for(&mut page, before);
    let bars = page.evaluate("document.querySelectorAll('#chart rect').length").expect("bars");
    assert_eq!(bars, 60);
    let fresh = page.evaluate(&text_of("ad-fresh")).expect("text");
    let fresh = fresh.as_str().expect("text");
    assert!(fresh.contains("is counted") && fresh.contains("of the one node"), "{fresh}");

    // More clicks come, and nobody touches the page.
    send(&folder, 102);
    wait_until_counted(&mut central);
    let after = clicks(&central, &ad);
    assert!(after > before, "{before} and then {after}");
    wait_for(&mut page, after);
    assert_eq!(page.evaluate("window.isTheSame").expect("value"), true, "it was loaded anew");
    assert_eq!(page.failures(), [""; 0]);
    central.stop().expect("stop");
    node.drain().expect("drain");
}

/// Ends a campaign's alert, or lets it last: as the tier itself would have kept it.
fn keep_an_alert(central_folder: &CentralFolder, campaign: u32, is_over: bool) {
    let limits = Alerts { least_windows: 2, ..Alerts::default() }.limits();
    let first = now_ms() / 60_000 / 5 * 5 - 60;
    let clicks = [100, 100, 1234].into_iter().chain([100; 3].into_iter().filter(|_| is_over));
    let (mut series, mut happened) = (Series::default(), Vec::new());
    for (number, clicks) in clicks.enumerate() {
        let window = Window { start: Minute(first as u32 + 5 * number as u32), clicks };
        happened.extend(series.judge(campaign, window, &limits));
        happened.extend(series.settle(window, &limits));
    }
    let path = central_folder.path().join("data/store");
    std::fs::create_dir_all(&path).expect("folder");
    let store = Store::open(&path).expect("store");
    store.note_alerts(&happened, &[], Minute(first as u32)).expect("kept");
}

#[test]
fn the_page_shows_alerts_the_open_ones_first_and_says_so_where_nobody_is_watched() {
    let Some(bootstrap) = kafka::shared() else { return };
    let archive = tempfile::tempdir().expect("folder");
    let watching = format!("{}[alerts]\n", CentralFolder::archiving(archive.path()));
    for (config, caption, rows) in [
        (watching.as_str(), "1 out of the ordinary now.", 2),
        ("", "No campaign is watched: the config has no [alerts].", 0),
    ] {
        let central_folder = CentralFolder::new(bootstrap, &kafka::fresh_prefix(), config).expect("folder");
        if rows > 0 {
            keep_an_alert(&central_folder, 41, true);
            keep_an_alert(&central_folder, 42, false);
        }
        let mut central = central_folder.start().expect("central");
        central.wait_until("/v1/alerts", |_| true).expect("an answer");
        let url = format!("http://127.0.0.1:{}/", central_folder.port());
        let Some(mut page) = Browser::open(&url).expect("browser") else { return };
        page.wait_until(&text_of("alerts-caption"), |text| *text == caption).expect("the caption");
        let found = "[...document.querySelectorAll('#alert-rows tr')].map(row => row.cells[0].textContent + row.cells[5].textContent.slice(0, 4))";
        let expected = if rows > 0 { json!(["42now", "41over"]) } else { json!([]) };
        assert_eq!(page.evaluate(found).expect("rows"), expected);
        assert_eq!(page.failures(), [""; 0]);
        central.stop().expect("stop");
    }
}

#[test]
fn with_keys_the_page_asks_for_one_keeps_it_to_itself_and_is_used_by_the_keyboard_alone() {
    let Some(bootstrap) = kafka::shared() else { return };
    let prefix = kafka::fresh_prefix();
    let folder = NodeFolder::forwarding(bootstrap, &prefix, 1).expect("folder");
    let node = folder.start_ready().expect("ready");
    send(&folder, 103);
    node.drain().expect("drain");
    let truth = Truth::of(bootstrap, &prefix).expect("rows");
    let ad = truth.ad();
    let clicks: u64 =
        truth.0.iter().filter(|((of, _), _)| *of == ad).map(|(_, totals)| totals.accepted.get()).sum();

    let config = "[[serve.keys]]\nname = \"lab\"\nfile = \"lab.key\"\n";
    let central_folder = CentralFolder::new(bootstrap, &prefix, config).expect("folder");
    let key = "7f".repeat(20);
    std::fs::write(central_folder.path().join("lab.key"), &key).expect("key");
    let central = central_folder.start().expect("central");
    wait_for_port(central_folder.port());
    let url = format!("http://127.0.0.1:{}/", central_folder.port());
    let Some(mut page) = Browser::open(&url).expect("browser") else { return };
    let is_denied = |state: &Value| state.as_str().is_some_and(|state| state.contains("a key is needed"));
    page.wait_until(&text_of("top-state"), is_denied).expect("a key is asked for");

    page.evaluate("document.body.tabIndex = -1, document.body.focus()").expect("focus");
    let focus = "document.activeElement.id";
    page.press("Tab").expect("tab");
    assert_eq!(page.evaluate(focus).expect("focus"), "ad");
    page.insert(&ad.to_string()).expect("typed");
    page.press("Enter").expect("enter");
    page.wait_until(&text_of("ad-state"), is_denied).expect("a key is asked for");
    assert_eq!(page.evaluate(AD_SHOWN).expect("value"), Value::Null);
    page.press("Tab").expect("tab");
    page.press("Tab").expect("tab");
    assert_eq!(page.evaluate(focus).expect("focus"), "key");
    page.insert(&key).expect("typed");
    page.press("Enter").expect("enter");
    page.wait_until(&text_of("ad-state"), |state| state == "Live.").expect("live");
    wait_for(&mut page, clicks);

    let kept = "[location.href.includes(document.getElementById('key').value), \
                localStorage.length + sessionStorage.length, document.cookie]";
    assert_eq!(page.evaluate(kept).expect("value"), json!([false, 0, ""]));
    assert_eq!(page.failures(), [""; 0]);
    central.stop().expect("stop");
}

#[test]
fn a_page_that_lost_its_server_says_so_and_goes_on_by_itself_and_fits_a_small_dark_screen() {
    let Some((folder, central_folder)) = folders() else { return };
    let mut central = central_folder.start().expect("central");
    let node = folder.start_ready().expect("ready");
    send(&folder, 104);
    wait_until_counted(&mut central);
    let ad = busiest(&central);
    let url = format!("http://127.0.0.1:{}/#ad={ad}&window=5m", central_folder.port());
    let Some(mut page) = Browser::open(&url).expect("browser") else { return };
    let before = clicks(&central, &ad);
    wait_for(&mut page, before);

    let screen = json!({"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true});
    page.call("Emulation.setDeviceMetricsOverride", &screen).expect("small");
    let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    page.call("Emulation.setEmulatedMedia", &dark).expect("dark");
    let seen =
        "[innerWidth, document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor]";
    page.wait_until(seen, |seen| *seen == json!([360, 360, "rgb(15, 19, 24)"])).expect("it fits");
    let labelled = "document.documentElement.lang === 'en' \
                    && [...document.querySelectorAll('input, select')].every(field => field.labels.length === 1)";
    assert_eq!(page.evaluate(labelled).expect("value"), true);

    central.kill().expect("kill");
    let is_away = |state: &Value| state.as_str().is_some_and(|state| state.contains("trying again"));
    for id in ["ad-state", "top-state"] {
        page.wait_until(&text_of(id), is_away).expect("it says that it is lost");
    }
    let mut central = central_folder.start().expect("central");
    send(&folder, 105);
    wait_until_counted(&mut central);
    for id in ["ad-state", "top-state"] {
        page.wait_until(&text_of(id), |state| state == "Live.").expect("live again");
    }
    let after = clicks(&central, &ad);
    assert!(after > before, "{before} and then {after}");
    wait_for(&mut page, after);
    assert_eq!(page.failures(), [""; 0]);
    central.stop().expect("stop");
    node.drain().expect("drain");
}

/// Waits until something answers here: where there are keys, only that can be asked without one.
fn wait_for_port(port: u16) {
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while weir_labs::get(port, "/livez").is_err() {
        assert!(std::time::Instant::now() < until, "nothing answers on {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
