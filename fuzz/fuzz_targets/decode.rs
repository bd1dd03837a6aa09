//! Fuzzes the frame accumulator and the decoders with arbitrary bytes. They must never panic, and
//! the frame that follows must be read. The input's first byte is the size of the pieces that are
//! fed to the accumulator.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::accumulator::{Accumulator, Fed};
use proto::frame::encode;
use proto::message::{FromCamera, Message, ToCamera};
use proto::recovery::{Request, Response};
use proto::report::Record;

fuzz_target!(|data: &[u8]| {
    let Some((&piece, bytes)) = data.split_first() else {
        return;
    };
    let mut last = Vec::new();
    let mut accumulator = Accumulator::new(vec![0; 4_096]);
    let marker = encode(b"the next frame").expect("it is short");
    let wire = [bytes, &marker].concat();
    for piece in wire.chunks(usize::from(piece).max(1)) {
        let mut rest = piece;
        loop {
            rest = match accumulator.feed(rest) {
                Fed::NeedMore => break,
                Fed::Discarded { rest, .. } => rest,
                Fed::Frame { payload, rest } => {
                    last = payload.to_vec();
                    rest
                }
            };
        }
    }
    assert_eq!(last, b"the next frame");
    decode(bytes);
});

/// Decodes the bytes as every kind of message and checks that what decodes survives a round trip.
fn decode(bytes: &[u8]) {
    if let Ok(message) = ToCamera::decode(bytes) {
        check_round_trip(&message);
    }
    if let Ok(message) = FromCamera::decode(bytes) {
        check_round_trip(&message);
    }
    if let Ok(record) = Record::decode(bytes) {
        check_round_trip(&record);
    }
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
    if let Ok(response) = Response::decode(bytes) {
        assert_eq!(response.encode(), bytes);
    }
}

fn check_round_trip<M: Message>(message: &M) {
    // Bytes are compared, because NaN is not equal to itself.
    let bytes = message.encode();
    let again = M::decode(&bytes).expect("what was encoded can be decoded");
    assert_eq!(again.encode(), bytes);
}
