//! The frame of a JPEG (ITU-T T.81, B.2.2): its size, its components, and which of their
//! coefficients the scans have delivered so far.

use super::check::Fault;

/// A frame header, and what came after it.
pub(super) struct Frame {
    /// Several scans refine the picture.
    pub(super) progressive: bool,
    pub(super) width_px: u32,
    pub(super) height_px: u32,
    pub(super) components: Vec<Component>,
    /// Greatest sampling factors of the components.
    pub(super) most_horizontal: u32,
    pub(super) most_vertical: u32,
}

/// One component of a frame.
pub(super) struct Component {
    pub(super) id: u8,
    /// Sampling factors, 1..=4.
    pub(super) horizontal: u32,
    pub(super) vertical: u32,
    /// Number of its quantisation table.
    pub(super) quantisation: u8,
    /// Blocks that cover the component, in a scan of its own.
    pub(super) columns: u32,
    pub(super) rows: u32,
    /// Blocks from row to row in a scan with others, whose units may extend beyond the picture.
    pub(super) stride: u32,
    /// For each coefficient, the bits that are still to come; `None` before its first scan.
    pub(super) missing_bits: [Option<u8>; 64],
    /// For each block of a progressive frame, which coefficients are not zero.
    pub(super) not_zero: Vec<u64>,
}

impl Frame {
    /// Width and height in pixels of a frame header's content.
    pub(super) fn size(content: &[u8]) -> Result<(u32, u32), Fault> {
        let &[_, height_1, height_0, width_1, width_0, ..] = content else {
            return Err(Fault::Header("frame"));
        };
        let height_px = u32::from(u16::from_be_bytes([height_1, height_0]));
        let width_px = u32::from(u16::from_be_bytes([width_1, width_0]));
        if height_px == 0 || width_px == 0 {
            let size = format!("a size of {width_px}×{height_px} px in the header");
            return Err(Fault::Unsupported(size));
        }
        Ok((width_px, height_px))
    }

    /// Reads the content of a frame header.
    pub(super) fn read(content: &[u8], progressive: bool) -> Result<Self, Fault> {
        let (width_px, height_px) = Self::size(content)?;
        let &[precision, _, _, _, _, count, ref list @ ..] = content else {
            return Err(Fault::Header("frame"));
        };
        if precision != 8 {
            return Err(Fault::Unsupported(format!("values of {precision} bits")));
        }
        let (entries, rest) = list.as_chunks::<3>();
        if !rest.is_empty() || entries.len() != usize::from(count) {
            return Err(Fault::Header("frame"));
        }
        if !(1..=4).contains(&count) {
            return Err(Fault::Unsupported(format!("{count} components")));
        }
        let factors = |entry: &[u8; 3]| (u32::from(entry[1] >> 4), u32::from(entry[1] & 15));
        let most_horizontal = entries.iter().map(|entry| factors(entry).0).max();
        let most_vertical = entries.iter().map(|entry| factors(entry).1).max();
        let (most_horizontal, most_vertical) =
            (most_horizontal.unwrap_or(1), most_vertical.unwrap_or(1));
        let mut frame = Self {
            progressive,
            width_px,
            height_px,
            components: Vec::new(),
            most_horizontal,
            most_vertical,
        };
        for entry in entries {
            let (horizontal, vertical) = factors(entry);
            if !(1..=4).contains(&horizontal) || !(1..=4).contains(&vertical) || entry[2] > 3 {
                return Err(Fault::Header("frame"));
            }
            let stride = frame.units_across() * horizontal;
            let blocks = stride * frame.units_down() * vertical;
            frame.components.push(Component {
                id: entry[0],
                horizontal,
                vertical,
                quantisation: entry[2],
                columns: (width_px * horizontal).div_ceil(most_horizontal * 8),
                rows: (height_px * vertical).div_ceil(most_vertical * 8),
                stride,
                missing_bits: [None; 64],
                not_zero: Vec::new(),
            });
            if progressive && let Some(component) = frame.components.last_mut() {
                component.not_zero = vec![0; blocks as usize];
            }
        }
        let mut ids: Vec<u8> = frame.components.iter().map(|c| c.id).collect();
        ids.sort_unstable();
        ids.dedup();
        match ids.len() == frame.components.len() {
            true => Ok(frame),
            false => Err(Fault::Header("frame")),
        }
    }

    /// Units (MCUs) of a scan with several components, side by side.
    pub(super) fn units_across(&self) -> u32 {
        self.width_px.div_ceil(self.most_horizontal * 8)
    }

    /// Units of a scan with several components, one below the other.
    pub(super) fn units_down(&self) -> u32 {
        self.height_px.div_ceil(self.most_vertical * 8)
    }

    /// Whether every bit of every coefficient has been delivered.
    pub(super) fn is_complete(&self) -> bool {
        let mut coefficients = self.components.iter().flat_map(|c| &c.missing_bits);
        coefficients.all(|missing| *missing == Some(0))
    }
}
