//! Handshakes and streams over real sockets, and with altered, replayed and arbitrary bytes.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use secure::handshake::{
    Accepted, Channel, FIRST_MESSAGE_WITHIN, HandshakeError, Intent, accept, connect,
};
use secure::identity::Identity;
use secure::pairing::Code;
use secure::stream::{Reader, Writer};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn code(seed: u8) -> Code {
    Code::from_random([seed; 12])
}

fn pair(seed: u8) -> Intent {
    Intent::Pair {
        code: code(seed),
        name: "line 3".to_owned(),
    }
}

/// The thread of a camera that accepts a link: the result, and its end of the socket.
type Accepts = JoinHandle<(Result<Accepted, HandshakeError>, UnixStream)>;

/// Starts a camera that accepts one link. Its pairing code is that of seed 1.
fn camera(identity: &Identity) -> (UnixStream, Accepts) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let identity = identity.clone();
    let accepts = std::thread::spawn(move || {
        let accepted = accept(&mut theirs, &identity, || Some(code(1).key()), soon());
        (accepted, theirs)
    });
    (ours, accepts)
}

struct Pair {
    station: (Channel, UnixStream),
    camera: (Accepted, UnixStream),
}

fn linked(intent: &Intent) -> Pair {
    let (own, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (mut stream, accepts) = camera(&other);
    let channel = connect(&mut stream, &own, Some(other.public()), intent, soon()).unwrap();
    let (accepted, theirs) = accepts.join().unwrap();
    let accepted = accepted.unwrap();
    assert_eq!(&accepted.channel.remote, own.public());
    assert_eq!(&channel.remote, other.public());
    Pair {
        station: (channel, stream),
        camera: (accepted, theirs),
    }
}

#[test]
fn both_sides_learn_each_others_key_and_exchange_bytes() {
    for intent in [Intent::Session, pair(1)] {
        let Pair { station, camera } = linked(&intent);
        let name = matches!(intent, Intent::Pair { .. }).then(|| "line 3".to_owned());
        assert_eq!(camera.0.pairs_as, name);
        let mut writer = Writer::new(&station.1, &station.0);
        let mut reader = Reader::new(&camera.1, &camera.0.channel);
        let long: Vec<u8> = (0..200_000u32).map(|index| index as u8).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                writer.write_all(b"hello").unwrap();
                writer.write_all(&long).unwrap();
                writer.flush().unwrap();
            });
            let mut all = Vec::new();
            while all.len() < 5 + long.len() {
                let mut piece = [0; 1_000];
                match reader.read(&mut piece) {
                    Ok(count) => all.extend_from_slice(&piece[..count]),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            assert_eq!((&all[..5], &all[5..]), (&b"hello"[..], &long[..]));
        });
    }
}

#[test]
fn a_wrong_code_and_a_wrong_key_are_refused() {
    let (own, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (mut stream, accepts) = camera(&other);
    connect(&mut stream, &own, None, &pair(2), soon()).unwrap();
    assert!(matches!(
        accepts.join().unwrap().0,
        Err(HandshakeError::WrongCode)
    ));
    // The station does not reveal its key to a camera that it does not know.
    let (mut stream, accepts) = camera(&other);
    let refused = connect(
        &mut stream,
        &own,
        Some(own.public()),
        &Intent::Session,
        soon(),
    );
    assert!(matches!(refused, Err(HandshakeError::WrongKey { .. })));
    drop(stream);
    assert!(matches!(
        accepts.join().unwrap().0,
        Err(HandshakeError::Io(_))
    ));
}

/// Performs a handshake and returns the bytes that the station sent to the camera.
fn recorded(identity: &Identity, intent: &Intent) -> Vec<u8> {
    struct Tap(UnixStream, Vec<u8>);
    impl Read for Tap {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.0.read(out)
        }
    }
    impl Write for Tap {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.0.write(bytes)?;
            self.1.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }
    let (stream, accepts) = camera(identity);
    let mut tap = Tap(stream, Vec::new());
    connect(
        &mut tap,
        &Identity::generate().unwrap(),
        None,
        intent,
        soon(),
    )
    .unwrap();
    accepts.join().unwrap().0.unwrap();
    tap.1
}

/// A peer that sends recorded bytes and ignores what it receives.
struct Replay(Cursor<Vec<u8>>);

impl Read for Replay {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl Write for Replay {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives a camera the recorded bytes of a station.
fn replay(identity: &Identity, bytes: &[u8]) -> Result<Accepted, HandshakeError> {
    let mut peer = Replay(Cursor::new(bytes.to_vec()));
    accept(&mut peer, identity, || Some(code(1).key()), soon())
}

#[test]
fn a_replayed_handshake_is_refused() {
    let identity = Identity::generate().unwrap();
    for intent in [Intent::Session, pair(1)] {
        let bytes = recorded(&identity, &intent);
        assert!(matches!(
            replay(&identity, &bytes),
            Err(HandshakeError::Crypto(_) | HandshakeError::WrongCode)
        ));
    }
}

#[test]
fn other_versions_plain_links_and_changed_intents_are_refused() {
    let identity = Identity::generate().unwrap();
    let bytes = recorded(&identity, &Intent::Session);
    let changed = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        bytes
    };
    for (at, version) in [(4, 0), (4, 2), (4, 255)] {
        let refused = replay(&identity, &changed(at, version));
        assert!(matches!(refused, Err(HandshakeError::Version(found)) if found == version));
    }
    assert!(matches!(
        replay(&identity, &changed(5, 2)),
        Err(HandshakeError::Version(1))
    ));
    assert!(matches!(
        replay(&identity, &changed(0, 0)),
        Err(HandshakeError::NotSecure(_))
    ));
    assert!(matches!(
        replay(&identity, &changed(8, 0xff)),
        Err(HandshakeError::Length(_))
    ));
}

/// Changes a byte of the preamble or of the station's first message on the way.
#[test]
fn a_change_on_the_way_is_detected() {
    let (own, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    for at in [6, 7, 10, 30] {
        let (mut toward_camera, accepts) = camera(&other);
        let (mut station, mut middle) = UnixStream::pair().unwrap();
        station
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let own = own.clone();
        let connects =
            std::thread::spawn(move || connect(&mut station, &own, None, &Intent::Session, soon()));
        let mut first = [0; 8 + 2 + 32];
        middle.read_exact(&mut first).unwrap();
        first[at] ^= 1;
        toward_camera.write_all(&first).unwrap();
        let mut answer = [0; 2 + 96];
        toward_camera.read_exact(&mut answer).unwrap();
        middle.write_all(&answer).unwrap();
        let refused = connects.join().unwrap();
        assert!(
            matches!(refused, Err(HandshakeError::Crypto(_))),
            "byte {at}"
        );
        drop(toward_camera);
        assert!(accepts.join().unwrap().0.is_err());
    }
}

#[test]
fn a_handshake_with_a_silent_peer_times_out() {
    let identity = Identity::generate().unwrap();
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    theirs
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    ours.write_all(b"AWRS").unwrap();
    let deadline = Instant::now() + Duration::from_millis(50);
    let refused = accept(&mut theirs, &identity, || None, deadline);
    assert!(matches!(refused, Err(HandshakeError::TimedOut)));
}

/// Whoever sends the eight bytes that ask to pair has tried no code.
#[test]
fn only_a_finished_handshake_with_another_code_is_a_wrong_code() {
    let identity = Identity::generate().unwrap();
    let preamble = b"AWRS\x01\x01\x00\x00".to_vec();
    for more in [&[][..], &[0, 32], &[0, 4, 1, 2, 3, 4], &[0xff; 40]] {
        let refused = replay(&identity, &[&preamble, more].concat());
        let error = refused.unwrap_err();
        assert!(!matches!(error, HandshakeError::WrongCode), "{error:?}");
    }
    let bytes = recorded(&identity, &pair(1));
    for length in 8..bytes.len() {
        let error = replay(&identity, &bytes[..length]).unwrap_err();
        assert!(
            matches!(error, HandshakeError::Io(_)),
            "{length}: {error:?}"
        );
    }
}

#[test]
fn a_peer_that_sends_its_first_message_slowly_holds_its_place_for_a_short_time() {
    let identity = Identity::generate().unwrap();
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    theirs
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    let started = Instant::now();
    let accepts = std::thread::spawn(move || {
        let deadline = soon() + Duration::from_secs(5);
        accept(&mut theirs, &identity, || None, deadline).map(|_| ())
    });
    // A byte now and then.
    for byte in b"AWRS\x01\x00" {
        ours.write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    let refused = accepts.join().unwrap();
    assert!(matches!(refused, Err(HandshakeError::TimedOut)));
    let took = started.elapsed();
    let limit = FIRST_MESSAGE_WITHIN + Duration::from_secs(1);
    assert!(took < limit, "{took:?}");
}

/// Encrypts pieces and returns their records, one for each.
fn records(channel: &Channel, pieces: &[&[u8]]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut writer = Writer::new(&mut wire, channel);
    for piece in pieces {
        writer.write_all(piece).unwrap();
        writer.flush().unwrap();
    }
    wire
}

fn read_all(wire: &[u8], channel: &Channel) -> (Vec<u8>, Option<ErrorKind>) {
    let mut reader = Reader::new(wire, channel);
    let mut all = Vec::new();
    let mut piece = [0; 64];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return (all, None),
            Ok(count) => all.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return (all, Some(error.kind())),
        }
    }
}

#[test]
fn records_altered_repeated_reflected_or_left_out_end_the_link() {
    let Pair { station, camera } = linked(&Intent::Session);
    let (sender, receiver) = (&station.0, &camera.0.channel);
    let wire = records(sender, &[b"one", b"two", b"three"]);
    assert_eq!(read_all(&wire, receiver), (b"onetwothree".to_vec(), None));
    let first = 2 + 3 + 16;
    let second = first + 2 + 3 + 16;
    let invalid = Some(ErrorKind::InvalidData);
    let repeated = [&wire[..first], &wire].concat();
    assert_eq!(read_all(&repeated, receiver), (b"one".to_vec(), invalid));
    let left_out = [&wire[..first], &wire[second..]].concat();
    assert_eq!(read_all(&left_out, receiver), (b"one".to_vec(), invalid));
    // Records cannot be reflected to their sender.
    assert_eq!(read_all(&wire, sender).1, invalid);
    for at in 0..wire.len() {
        let mut altered = wire.clone();
        altered[at] ^= 0x10;
        let (found, error) = read_all(&altered, receiver);
        // With a greater length, the reader waits for bytes that never arrive.
        assert!(error == invalid || found.len() < 11, "byte {at}");
        assert!(b"onetwothree".starts_with(&found), "byte {at}");
    }
    assert_eq!(read_all(&[0, 0, 1], receiver).1, invalid);
    assert_eq!(read_all(&[0, 3, 1, 2, 3], receiver).1, invalid);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn arbitrary_bytes_never_make_a_session(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        valid_preamble: bool,
    ) {
        if valid_preamble && bytes.len() > 8 {
            bytes[..6].copy_from_slice(b"AWRS\x01\x00");
        }
        let identity = Identity::from_secret([7; 32]).unwrap();
        prop_assert!(replay(&identity, &bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_make_a_record(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let Pair { camera, .. } = linked(&Intent::Session);
        prop_assert!(read_all(&bytes, &camera.0.channel).0.is_empty());
    }
}
