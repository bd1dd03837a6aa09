//! Fuzzes the reader of packages: the container with arbitrary bytes, and what is inside a container
//! whose lengths and signature are right. It must never panic.

#![no_main]

use ed25519_dalek::{Signer, SigningKey};
use libfuzzer_sys::fuzz_target;
use scoring::package::{Loaded, Trust};

fuzz_target!(|data: &[u8]| {
    let Some((&kind, bytes)) = data.split_first() else {
        return;
    };
    let file = match kind {
        0 => bytes.to_vec(),
        // A quarter of the input or less is the graph, the rest the manifest.
        _ => {
            let graph = bytes.len() * usize::from(kind) / 1_024;
            let (manifest, graph) = bytes.split_at(bytes.len() - graph);
            let key = SigningKey::from_bytes(&[7; 32]);
            let mut file = b"AWRPKG\r\n\x01\0\0\0".to_vec();
            file.extend((manifest.len() as u32).to_le_bytes());
            file.extend((graph.len() as u64).to_le_bytes());
            file.extend(manifest);
            file.extend(graph);
            file.extend(key.verifying_key().as_bytes());
            let signature = key.sign(&file);
            file.extend(signature.to_bytes());
            file
        }
    };
    if let Ok(package) = Loaded::new(file) {
        package.verify(&Trust::AnySigner).ok();
    }
});
