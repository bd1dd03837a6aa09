//! Decoders with input that no well-behaved peer sends.

use proptest::prelude::*;
use proto::manifest::Roi;
use proto::message::*;
use proto::recovery::{MARK, Request, Response};
use proto::report::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = ToCamera::decode(&bytes);
        let _ = FromCamera::decode(&bytes);
        let _ = Record::decode(&bytes);
    }

    #[test]
    fn recovery_messages_survive_a_round_trip(
        body in prop::collection::vec(any::<u8>(), 0..80),
        operation in 0u8..8,
    ) {
        let payload = [&[MARK, 1, operation][..], &body].concat();
        if let Ok(request) = Request::decode(&payload) {
            prop_assert_eq!(request.encode(), payload.clone());
        }
        if let Ok(response) = Response::decode(&payload) {
            prop_assert_eq!(response.encode(), payload);
        }
    }

    #[test]
    fn a_truncated_message_is_refused(cut in 0usize..20) {
        let whole = ToCamera::Command {
            id: 1,
            command: Command::SetThreshold { value: 0.5, reason: "a good reason".into() },
        }
        .encode();
        let cut = cut.min(whole.len() - 1);
        prop_assert_eq!(ToCamera::decode(&whole[..cut]), Err(DecodeError::Short));
        let longer = [&whole[..], &[0]].concat();
        prop_assert_eq!(ToCamera::decode(&longer), Err(DecodeError::Trailing));
    }
}

#[test]
fn a_variant_of_a_newer_version_is_reported_as_unknown() {
    for byte in [5u8, 6, 100, 127] {
        assert_eq!(
            ToCamera::decode(&[byte, 1, 2, 3]),
            Err(DecodeError::Unknown)
        );
    }
}

#[test]
fn a_record_may_begin_with_any_byte() {
    for unix_ms in 0..1_000 {
        let record = Record {
            unix_ms,
            boot: 1,
            body: Body::Event(Event::Stopping),
        };
        assert_eq!(Record::decode(&record.encode()), Ok(record));
    }
}

#[test]
fn lengths_beyond_their_limits_are_refused() {
    let command = |roi| ToCamera::Command {
        id: 1,
        command: Command::SetMask {
            roi,
            reason: String::new(),
        },
    };
    let long = command(Roi::Bitmap {
        width: 1,
        height: 1,
        runs: vec![0; proto::limits::MAX_MASK_RUNS + 1],
    });
    assert_eq!(
        ToCamera::decode(&long.encode()),
        Err(DecodeError::Limit("mask"))
    );
    let log = FromCamera::Log {
        level: 1,
        text: "x".repeat(proto::limits::MAX_TEXT_BYTES + 1),
    };
    assert_eq!(
        FromCamera::decode(&log.encode()),
        Err(DecodeError::Limit("text"))
    );
}

#[test]
fn an_announced_length_is_not_allocated_in_advance() {
    // The record's `regions` announces 2^28 elements and holds none.
    let mut bytes = Record {
        unix_ms: 0,
        boot: 0,
        body: Body::Part(PartReport {
            part: 0,
            frame_sequence: 0,
            model_id: [0; 8],
            outcome: Outcome::Ok,
            action: GateAction::None,
            score: None,
            threshold: None,
            latency_us: 0,
            regions: Vec::new(),
            regions_found: 0,
            heat_map: None,
            thumbnail_jpeg: None,
        }),
    }
    .encode();
    let end = bytes.len() - 4;
    bytes.truncate(end);
    bytes.extend_from_slice(&[0x80, 0x80, 0x80, 0x80, 0x01]);
    assert_eq!(Record::decode(&bytes), Err(DecodeError::Short));
}

#[test]
fn texts_are_cut_between_characters() {
    let text = "ä".repeat(proto::limits::MAX_TEXT_BYTES);
    let cut = cut_text(&format!("x{text}"));
    assert_eq!(cut.len(), proto::limits::MAX_TEXT_BYTES - 1);
}
