//! Looks indices up in a palette.

use crate::inspect::frame::{Channels, Pixels};

/// The colours of indices: grey where the whole palette is grey. An error says which index the
/// palette does not have.
pub(super) fn by_palette(
    indices: &[u8],
    palette: &[[u8; 3]],
) -> Result<(Channels, Pixels), String> {
    let count = palette.len();
    if let Some(index) = indices.iter().find(|&&index| usize::from(index) >= count) {
        return Err(format!("expected an index below {count}, found {index}"));
    }
    let grey = palette
        .iter()
        .all(|[red, green, blue]| red == green && green == blue);
    let colours = indices.iter().map(|&index| palette[usize::from(index)]);
    Ok(match grey {
        true => (
            Channels::Grey,
            Pixels::U8(colours.map(|[grey, ..]| grey).collect()),
        ),
        false => (Channels::Rgb, Pixels::U8(colours.flatten().collect())),
    })
}
