//! Announces the camera's name and address on the local network by mDNS and DNS-SD (RFC 6762, RFC
//! 6763), for `station discover`.

use std::net::SocketAddr;

use mdns_sd::{ServiceDaemon, ServiceInfo};
use proto::discovery::{KEY_PROPERTY, SERVICE, VERSION_PROPERTY};

/// Announces the camera until it is dropped.
pub struct Announcement {
    daemon: ServiceDaemon,
}

impl std::fmt::Debug for Announcement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Announcement")
    }
}

impl Announcement {
    /// Announces a camera that listens on this address. The announcement reveals nothing but the
    /// name, the address, the key's id and the program's version.
    pub fn start(name: &str, address: SocketAddr, key_id: &str) -> Result<Self, mdns_sd::Error> {
        let daemon = ServiceDaemon::new()?;
        let version = env!("CARGO_PKG_VERSION");
        let properties = [(KEY_PROPERTY, key_id), (VERSION_PROPERTY, version)];
        // Not the machine's host name, which another program may announce.
        let host = format!("awr-{key_id}.local.");
        let everywhere = address.ip().is_unspecified();
        let ip = if everywhere {
            String::new()
        } else {
            address.ip().to_string()
        };
        let mut service =
            ServiceInfo::new(SERVICE, name, &host, ip, address.port(), &properties[..])?;
        if everywhere {
            service = service.enable_addr_auto();
        }
        daemon.register(service)?;
        Ok(Self { daemon })
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        self.daemon.shutdown().ok();
    }
}

/// Whether other machines can reach an address at all.
pub fn is_public(address: SocketAddr) -> bool {
    !address.ip().is_loopback()
}
