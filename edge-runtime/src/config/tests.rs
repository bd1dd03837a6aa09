use std::time::Duration;

use super::*;

const SMALL: &str = r#"
    name = "top"
    state = "state"
    [model]
    package = "m.awr"
    trust = ["m.pub"]
    [capture]
    kind = "replay"
    path = "frames"
"#;

#[test]
fn a_small_configuration_has_safe_defaults() {
    let config = Config::parse(SMALL).unwrap();
    assert!(config.gate.is_none());
    assert_eq!(config.inspection.threads, 1);
    assert_eq!(config.deadline(), None);
    assert_eq!(OnFault::default(), OnFault::Reject);
}

#[test]
fn a_serial_line_may_only_watch_unless_more_is_configured() {
    let role = |more: &str| {
        let line = format!("[link]\nserial = {{ path = \"/dev/ttyS1\"{more} }}");
        let config = Config::parse(&format!("{SMALL}\n{line}")).unwrap();
        config.link.serial.unwrap().role
    };
    assert_eq!(role(""), SerialRole::Watch);
    assert_eq!(role(", role = \"engineer\""), SerialRole::Engineer);
}

#[test]
fn a_name_that_no_station_could_show_is_refused() {
    for name in [
        "",
        "a\\u001b[2Jb",
        "a\\u202eb",
        "serial:1",
        " a",
        &"x".repeat(513),
    ] {
        let text = SMALL.replace("\"top\"", &format!("\"{name}\""));
        let error = Config::parse(&text).unwrap_err();
        assert!(error.contains("name: expected 1 to 512 bytes"), "{error}");
        assert!(!error.contains(['\u{1b}', '\u{202e}']), "{error}");
    }
}

#[test]
fn the_documented_configuration_is_valid() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/camera.toml");
    let config = Config::read(Path::new(path)).unwrap();
    assert_eq!(config.deadline(), Some(Duration::from_millis(200)));
    assert!(matches!(config.trigger, Trigger::Gpio { .. }));
    let Capture::V4l2 { controls, .. } = config.capture else {
        panic!("expected a camera")
    };
    assert_eq!(controls.len(), 2);
}

#[test]
fn a_misspelt_key_is_refused_with_its_line_and_a_suggestion() {
    let text = SMALL.replace("package =", "pakage =");
    let error = Config::parse(&text).unwrap_err();
    assert!(
        error.contains("line 5") && error.contains("did you mean `package`"),
        "{error}"
    );
    let error = Config::parse(&format!("{SMALL}\n[jurnal]\nmax_mb = 1")).unwrap_err();
    assert!(error.contains("did you mean `journal`"), "{error}");
    let error = Config::parse(&format!("{SMALL}\nsped = 1")).unwrap_err();
    assert!(error.contains("did you mean `speed`"), "{error}");
    let error = Config::parse(&SMALL.replace("replay", "reply")).unwrap_err();
    assert!(error.contains("did you mean `replay`"), "{error}");
}

#[test]
fn a_misspelt_polarity_is_refused_in_every_table_with_a_line() {
    let refused = |more: &str| {
        let error = Config::parse(&format!("{SMALL}\n{more}")).unwrap_err();
        assert!(error.contains("did you mean `active_low`"), "{error}");
    };
    let line = "{ chip = \"c\", line = 1, activelow = true }";
    refused(&format!("[gate]\noutput = {line}"));
    refused(&format!("[signals]\nready = {line}"));
    refused(&format!(
        "[gate]\noutput = {{ chip = \"c\", line = 1 }}\n\
         encoder = {{ input = {line}, delay_counts = 1, pulse_counts = 1 }}"
    ));
    refused("[trigger]\nkind = \"gpio\"\nchip = \"c\"\nline = 1\nactiv_low = true");
}

#[test]
fn a_trigger_accepts_only_the_keys_of_its_kind() {
    let parse = |more: &str| Config::parse(&format!("{SMALL}\n[trigger]\n{more}"));
    let gpio = "kind = \"gpio\"\nchip = \"c\"\nline = 1\nactive_low = true";
    let config = parse(gpio).unwrap();
    let Trigger::Gpio {
        line, active_low, ..
    } = config.trigger
    else {
        panic!("expected a line")
    };
    assert_eq!((line, active_low), (1, true));
    assert!(matches!(
        parse("kind = \"free\"").unwrap().trigger,
        Trigger::Free {}
    ));
    let error = parse(&format!("{gpio}\nframe_withinms = 9")).unwrap_err();
    assert!(error.contains("did you mean `frame_within_ms`"), "{error}");
    assert!(parse("kind = \"free\"\nline = 4").is_err());
}

#[test]
fn values_out_of_range_are_refused_with_the_name_of_the_key() {
    let with = |more: &str| Config::parse(&format!("{SMALL}\n{more}")).unwrap_err();
    assert!(with("[inspection]\nthreads = 0").contains("inspection.threads"));
    let found = with("[inspection]\nthreads_per_frame = 65");
    assert!(found.contains("inspection.threads_per_frame"), "{found}");
    assert!(with("speed = 0.0").contains("capture.speed"));
    assert!(with("[journal]\nmax_mb = 0").contains("journal.max_mb"));
    assert!(with("[journal]\nsync_ms = 40000").contains("journal.sync_ms: expected 0 to 5000"));
    assert!(with("speed = 1e-20").contains("capture.speed"));
    let camera = |more: &str| {
        let capture = format!("kind = \"v4l2\"\ndevice = \"/dev/video0\"\n{more}");
        let text = SMALL.replace("kind = \"replay\"", &capture);
        Config::parse(&text.replace("path = \"frames\"", ""))
    };
    assert!(camera("fps = 1e-20").unwrap_err().contains("capture.fps"));
    let none = camera("timeout_ms = 0").unwrap_err();
    assert!(none.contains("capture.timeout_ms"), "{none}");
    let gate = "[gate]\noutput = { chip = \"c\", line = 1 }";
    assert!(with(&format!("{gate}\npulse_ms = 0")).contains("gate.pulse_ms"));
    let second = camera("").unwrap();
    assert_eq!(second.longest_wait(), Duration::from_secs(1));
    // A camera that waits for a trigger is not lost while the line has a pause.
    let trigger = "exposure_to_stamp_us = 0\n[trigger]\nkind = \"gpio\"\nchip = \"c\"\nline = 1\n";
    let of = |more: &str| {
        let text = SMALL.replace(
            "kind = \"replay\"",
            "kind = \"v4l2\"\ndevice = \"/dev/video0\"",
        );
        let text = text.replace("path = \"frames\"", "");
        let config = Config::parse(&format!("{text}\n{trigger}{more}")).unwrap();
        config.longest_wait()
    };
    assert_eq!(of("silent_after_ms = 5000"), Duration::from_secs(6));
    assert_eq!(of("silent_off = \"by hand\""), Duration::from_secs(3_600));
    assert_eq!(of("drives_camera = false"), Duration::from_secs(1));
    let minute = camera("timeout_ms = 60000").unwrap();
    assert_eq!(minute.longest_wait(), Duration::from_secs(60));
    assert!(with("[link]\ntcp = \"nowhere\"").contains("line"));
}

#[test]
fn silence_is_limited_unless_there_is_a_reason() {
    let trigger = |more: &str| {
        let gpio = "[trigger]\nkind = \"gpio\"\nchip = \"c\"\nline = 1\n";
        Config::parse(&format!("{SMALL}\n{gpio}{more}"))
    };
    let limits = |more| trigger(more).unwrap().silence_limits();
    assert_eq!(limits("").trigger, Some(Duration::from_secs(30)));
    let shorter = limits("silent_after_ms = 2000");
    assert_eq!(shorter.trigger, Some(Duration::from_secs(2)));
    assert_eq!(limits("silent_off = \"by hand\"").trigger, None);
    let found = trigger("silent_off = \" \"").unwrap_err();
    assert!(
        found.contains("trigger.silent_off: expected a reason"),
        "{found}"
    );
    let found = trigger("silent_after_ms = 0").unwrap_err();
    assert!(found.contains("trigger.silent_after_ms"), "{found}");

    let encoder = |more: &str| {
        let line = "{ chip = \"c\", line = 1 }";
        let text = format!(
            "[gate]\noutput = {line}\n[gate.encoder]\ninput = {line}\ndelay_counts = 9\n\
             pulse_counts = 1\n{more}"
        );
        trigger(&text).unwrap().silence_limits()
    };
    let found = encoder("");
    assert_eq!(found.encoder, Some(Duration::from_secs(30)));
    assert_eq!(found.parts_without_count, Some(3));
    assert!(found.has_encoder);
    let found = encoder("silent_off = \"breaks\"");
    assert_eq!((found.encoder, found.parts_without_count), (None, Some(3)));
    // Frames come while the belt stands, so they say nothing about the encoder.
    let free = Config::parse(SMALL).unwrap().silence_limits();
    assert_eq!(free, crate::line::silence::Limits::default());
}

#[test]
fn conditions_have_the_configured_effect() {
    let policy = |more: &str| {
        let config = Config::parse(&format!("{SMALL}\n[readiness]\n{more}")).unwrap();
        config.readiness_policy()
    };
    assert_eq!(policy(""), crate::line::readiness::Policy::default());
    let found = policy("faults_in_a_row = 5\ngolden = \"fault\"\njournal = \"hold\"");
    assert_eq!(found.faults_in_a_row, 5);
    assert_eq!(found.golden, crate::line::readiness::Effect::Fault);
    assert_eq!(found.journal, crate::line::readiness::Effect::Hold);
    let unknown = format!("{SMALL}\n[readiness]\nframes = \"fault\"");
    assert!(Config::parse(&unknown).is_err(), "not configurable");
}

#[test]
fn speeds_are_words_or_numbers() {
    let speed = |value: &str| {
        let config = Config::parse(&format!("{SMALL}\nspeed = {value}")).unwrap();
        let Capture::Replay { speed, .. } = config.capture else {
            panic!("expected a replay")
        };
        speed
    };
    assert_eq!(speed("\"maximum\""), Speed::Named(NamedSpeed::Maximum));
    assert_eq!(speed("12.5"), Speed::FramesPerSecond(12.5));
    assert_eq!(speed("30"), Speed::FramesPerSecond(30.0));
}

#[test]
fn the_deadline_is_the_shorter_of_the_configured_one_and_the_gates_delay() {
    let gate = |more: &str| {
        let gate = "[gate]\noutput = { chip = \"c\", line = 1 }\ndelay_ms = 200\n";
        Config::parse(&format!("{SMALL}\n{gate}{more}"))
            .unwrap()
            .deadline()
    };
    assert_eq!(gate(""), Some(Duration::from_millis(200)));
    assert_eq!(
        gate("[inspection]\ndeadline_ms = 90"),
        Some(Duration::from_millis(90))
    );
    assert_eq!(
        gate("[inspection]\ndeadline_ms = 900"),
        Some(Duration::from_millis(200))
    );
}

#[test]
fn a_gate_that_follows_the_verdict_at_once_has_a_deadline_too() {
    let gate = |gate: &str, more: &str| {
        let gate = format!("[gate]\noutput = {{ chip = \"c\", line = 1 }}\n{gate}\n");
        Config::parse(&format!("{SMALL}\n{gate}{more}"))
            .unwrap()
            .deadline()
    };
    let ms = Duration::from_millis;
    assert_eq!(gate("", ""), Some(ms(500)));
    let own = "[inspection]\ndeadline_ms = 900";
    assert_eq!(gate("delay_ms = 0", own), Some(ms(900)));
    let encoder = |counts| {
        format!(
            "[gate.encoder]\ninput = {{ chip = \"c\", line = 2 }}\ndelay_counts = {counts}\n\
             pulse_counts = 5"
        )
    };
    assert_eq!(gate(&encoder(0), ""), Some(ms(500)));
    assert_eq!(gate(&encoder(9), ""), None);
}

#[test]
fn relative_paths_start_at_the_configurations_folder() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("camera.toml");
    std::fs::write(&path, SMALL).unwrap();
    let config = Config::read(&path).unwrap();
    assert_eq!(config.model.package, Some(root.path().join("m.awr")));
}
