//! The systemd unit of the camera has what the book and the program rely on.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::path::{Path, PathBuf};

fn systemd_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/systemd")
}

fn unit() -> String {
    std::fs::read_to_string(systemd_folder().join("edge-runtime.service")).unwrap()
}

/// The values of a key of a section, in the order of the file.
fn values<'a>(unit: &'a str, section: &str, key: &str) -> Vec<&'a str> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in unit.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == format!("[{section}]");
        } else if inside
            && let Some((name, value)) = line.split_once('=')
            && name == key
        {
            found.push(value);
        }
    }
    found
}

#[test]
fn systemd_never_gives_up_and_kills_a_program_that_hangs() {
    let unit = unit();
    for (section, key, expected) in [
        ("Unit", "StartLimitIntervalSec", "0"),
        ("Unit", "Wants", "network-online.target"),
        ("Unit", "After", "network-online.target"),
        ("Service", "Type", "notify"),
        ("Service", "Restart", "always"),
        ("Service", "RestartSec", "1"),
        // More than the 30 s after which the program ends by itself and leaves the gate safe.
        ("Service", "WatchdogSec", "60"),
        ("Service", "OOMScoreAdjust", "-500"),
        ("Install", "WantedBy", "multi-user.target"),
    ] {
        assert_eq!(values(&unit, section, key), [expected], "{key}");
    }
}

#[test]
fn the_program_has_a_user_of_its_own_with_the_devices_that_it_needs() {
    let unit = unit();
    assert_eq!(values(&unit, "Service", "User"), ["awr"]);
    assert_eq!(
        values(&unit, "Service", "SupplementaryGroups"),
        ["video gpio dialout"]
    );
    for (key, expected) in [
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("StateDirectory", "awr"),
        ("UMask", "0077"),
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("LimitRTPRIO", "99"),
        ("LimitMEMLOCK", "infinity"),
    ] {
        assert_eq!(values(&unit, "Service", key), [expected], "{key}");
    }
    // These would take away what the program needs: devices, and real-time priority.
    assert!(values(&unit, "Service", "PrivateDevices").is_empty());
    assert!(values(&unit, "Service", "RestrictRealtime").is_empty());
}

#[test]
fn user_and_groups_of_the_unit_are_created_where_they_do_not_exist() {
    let text = std::fs::read_to_string(systemd_folder().join("awr.sysusers")).unwrap();
    let lines: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().collect())
        .collect();
    let has = |kind: &str, name: &str| {
        let mut lines = lines.iter();
        lines.any(|line| line.first() == Some(&kind) && line.get(1) == Some(&name))
    };
    assert!(has("u", "awr"));
    for group in ["video", "gpio", "dialout"] {
        assert!(has("g", group), "{group}");
    }
    let rules = std::fs::read_to_string(systemd_folder().join("awr-gpio.rules")).unwrap();
    assert!(rules.contains("GROUP=\"gpio\""), "{rules}");
}
