//! Fuzzes a camera's side of the handshake, and the reader of encrypted records, with arbitrary
//! bytes. They must never panic, make a session, or yield a plain byte.

#![no_main]

use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use secure::handshake::{Channel, Intent, accept, connect};
use secure::identity::Identity;
use secure::stream::Reader;

/// A peer that sends the given bytes and ignores what it receives.
struct Replay<'a>(Cursor<&'a [u8]>);

impl Read for Replay<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl Write for Replay<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn identity(seed: u8) -> Identity {
    Identity::from_secret([seed; 32]).expect("any bytes are a key")
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// The camera's side of a finished handshake, made once.
fn channel() -> &'static Channel {
    static CHANNEL: OnceLock<Channel> = OnceLock::new();
    CHANNEL.get_or_init(|| {
        let (mut one, mut other) = UnixStream::pair().expect("a socket pair");
        let accepts = std::thread::spawn(move || {
            accept(&mut other, &identity(1), || None, soon()).map(|accepted| accepted.channel)
        });
        connect(&mut one, &identity(2), None, &Intent::Session, soon()).expect("they agree");
        accepts.join().expect("no panic").expect("they agree")
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, bytes)) = data.split_first() else {
        return;
    };
    // A quarter of the inputs goes to the reader of records, half begin with a valid preamble.
    let start: &[u8] = match kind % 4 {
        0 => b"",
        1 => b"AWRS\x01\x00\x00\x00",
        2 => b"AWRS\x01\x01\x00\x00\x00\x20",
        _ => {
            let mut reader = Reader::new(bytes, channel());
            let mut piece = [0; 64];
            loop {
                match reader.read(&mut piece) {
                    Ok(0) => return,
                    Ok(_) => panic!("a forged record"),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        }
    };
    let wire = [start, bytes].concat();
    let mut peer = Replay(Cursor::new(&wire));
    let code = || Some([7; 32]);
    assert!(accept(&mut peer, &identity(1), code, soon()).is_err());
});
