//! Names under which a camera announces itself on the local network with DNS-SD (RFC 6763).

/// Service type that cameras announce and stations browse for.
pub const SERVICE: &str = "_awr._tcp.local.";
/// TXT property that holds the camera's key id.
pub const KEY_PROPERTY: &str = "key";
/// TXT property that holds the program's version.
pub const VERSION_PROPERTY: &str = "version";
