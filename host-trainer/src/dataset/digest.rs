//! SHA-256 of files, of pictures and of sets of files.

use std::fs;
use std::path::Path;

use scoring::inspect::frame::{Channels, Frame, Pixels};
use sha2::{Digest, Sha256};

use super::error::DatasetError;

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a file's bytes.
pub fn file_digest(file: &Path) -> Result<[u8; 32], DatasetError> {
    let bytes = fs::read(file).map_err(|source| DatasetError::Read {
        path: file.to_owned(),
        source,
    })?;
    Ok(Sha256::digest(&bytes).into())
}

/// One digest for a set of files, independent of their names and order: SHA-256 over their sorted
/// digests.
pub fn digest_of_files(digests: &[[u8; 32]]) -> [u8; 32] {
    let mut sorted = digests.to_vec();
    sorted.sort_unstable();
    Sha256::digest(sorted.concat()).into()
}

/// SHA-256 of a picture's size and pixels: the same for a copy in another lossless format, in
/// colour instead of grey, or in 16 bits instead of 8.
pub fn pixel_digest(frame: &Frame) -> [u8; 32] {
    match frame.pixels() {
        Pixels::U8(values) => digest_of_values(frame, values, 1, |value| [value]),
        Pixels::U16(values) if values.iter().all(|value| value % 257 == 0) => {
            digest_of_values(frame, values, 1, |value| [(value / 257) as u8])
        }
        Pixels::U16(values) => digest_of_values(frame, values, 2, u16::to_le_bytes),
    }
}

fn digest_of_values<T: Copy + PartialEq, const N: usize>(
    frame: &Frame,
    values: &[T],
    bytes: u8,
    of: impl Fn(T) -> [u8; N],
) -> [u8; 32] {
    let (pixels, _) = values.as_chunks::<3>();
    let grey = frame.channels() == Channels::Rgb && pixels.iter().all(|[r, g, b]| r == g && g == b);
    let colour = frame.channels() == Channels::Rgb && !grey;
    let mut hash = Sha256::new();
    hash.update(frame.width_px().to_le_bytes());
    hash.update(frame.height_px().to_le_bytes());
    hash.update([u8::from(colour), bytes]);
    let step = if grey { 3 } else { 1 };
    let all: Vec<u8> = values.iter().step_by(step).flat_map(|value| of(*value)).collect();
    hash.update(&all);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_digest_of_its_original_in_whatever_type() {
        let of = |channels, pixels| {
            let values = match &pixels {
                Pixels::U8(values) => values.len(),
                Pixels::U16(values) => values.len(),
            };
            let width = (values / 2 / if channels == Channels::Rgb { 3 } else { 1 }) as u32;
            pixel_digest(&Frame::new(width, 2, channels, pixels).unwrap())
        };
        let grey = [0u8, 7, 255, 128];
        let deep: Vec<u16> = grey.iter().map(|value| u16::from(*value) * 257).collect();
        let colour: Vec<u8> = grey.iter().flat_map(|value| [*value; 3]).collect();
        let digest = of(Channels::Grey, Pixels::U8(grey.to_vec()));
        assert_eq!(of(Channels::Grey, Pixels::U16(deep.clone())), digest);
        assert_eq!(of(Channels::Rgb, Pixels::U8(colour.clone())), digest);
        let mut tinted = colour;
        tinted[1] = 8;
        assert_ne!(of(Channels::Rgb, Pixels::U8(tinted)), digest);
        let mut finer = deep;
        finer[1] += 1;
        assert_ne!(of(Channels::Grey, Pixels::U16(finer)), digest);
        // The same values in another shape are another picture.
        let wide = Frame::new(4, 1, Channels::Grey, Pixels::U8(grey.to_vec())).unwrap();
        assert_ne!(pixel_digest(&wide), digest);
    }
}
