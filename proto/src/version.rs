//! The protocol version, and how two ends agree on one.

/// First bytes of every hello.
pub const MAGIC: [u8; 4] = *b"AWRc";
/// The newest version that this crate speaks. Raised when a message is added.
pub const VERSION: u16 = 3;
/// The oldest version whose messages this crate still understands.
pub const MIN_VERSION: u16 = 1;
/// FNV-1a (64 bit) over the committed byte snapshots of all messages (`tests/snapshots.txt`). Two
/// ends of the same version with different hashes are builds that disagree about the encoding. The
/// hash is good for a warning, it is not a security check.
pub const SCHEMA_HASH: u64 = 0x2245_5063_7811_9438;

/// Returns the version that two ends speak: the lower of their newest versions, if both still
/// understand it. Each argument is the oldest and the newest version of one end.
pub fn agree(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let (our_min, our_max) = ours;
    let (their_min, their_max) = theirs;
    let version = our_max.min(their_max);
    (version >= our_min && version >= their_min).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::agree;

    #[test]
    fn the_lower_version_is_agreed_on_if_both_understand_it() {
        assert_eq!(agree((1, 3), (2, 5)), Some(3));
        assert_eq!(agree((2, 5), (1, 3)), Some(3));
        assert_eq!(agree((4, 5), (1, 3)), None);
        assert_eq!(agree((1, 3), (4, 5)), None);
    }
}
