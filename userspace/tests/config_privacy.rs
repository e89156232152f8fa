//! What a config says of users.

use std::path::PathBuf;

use weir::config::{Config, Salting};

fn salting(privacy: &str) -> Result<Salting, String> {
    let text = format!("[node]\ndata_dir = \"/srv/weir\"\n[privacy]\n{privacy}");
    Config::parse(&text).map(|config| config.privacy.salting).map_err(|error| error.to_string())
}

#[test]
fn salts_are_drawn_unless_the_config_says_otherwise_and_a_promise_without_folder_is_refused() {
    let (own, other) = (PathBuf::from("/srv/weir/salts"), PathBuf::from("/srv/salts"));
    assert_eq!(salting(""), Ok(Salting::Drawn(own)));
    assert_eq!(salting("salts_dir = \"/srv/salts\""), Ok(Salting::Drawn(other.clone())));
    assert_eq!(salting("salts = \"brought\"\nsalts_dir = \"/srv/salts\""), Ok(Salting::Brought(other)));
    assert_eq!(salting("salts = \"none\""), Ok(Salting::None));
    for (wrong, told) in [
        ("salts = \"brought\"", "name one as salts_dir"),
        ("salts = \"none\"\nsalts_dir = \"/srv/salts\"", "name no folder"),
        ("salts = \"some\"", "one of \"drawn\", \"brought\", \"none\""),
        ("salts_dir = \"salts\"", "an absolute path"),
    ] {
        let error = salting(wrong).unwrap_err();
        assert!(error.contains(told), "{wrong}: {error}");
    }
}
