//! Which way a layer is computed and which of tract's kernels it gets: what is fastest on the processor it runs on, measured on the
//! model's own shapes.
//!
//! tract chooses by rules that were measured on other machines; on one that they do not fit, a frame takes half as long
//! again (`shared/notes/inference.md`). Measuring takes some 0.1 s, and what was found is kept on disk where the caller
//! names a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tract_onnx::tract_core::internal::*;

use super::gemm::{After, Kernel, Operand};
use super::image::{Image, Output, Value};
use super::layer::{Definition, FEW_CHANNELS, Kind, Layer};
use super::pool::Pool;
use crate::io::atomic::write_atomic;

/// Multiply-adds of a measured product: enough to fill caches as a frame does, few enough to measure all kernels.
const PRODUCTS: usize = 8 << 20;
/// Each kernel is run so often for each shape; the fastest counts.
const RUNS: usize = 4;
/// Layers take so many turns.
const TURNS: usize = 3;
/// A depth beyond that tells nothing more about a kernel.
const DEPTH: usize = 576;
/// No longer than that in all.
const LIMIT: Duration = Duration::from_secs(2);

/// Ways to compute a layer, as they are kept: where the image lies, and by panels.
const DIRECT: &str = "direct";
const PANELS: &str = "panels";

/// The shape of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Its kind.
    pub(super) kind: Kind,
    /// Channels in and out.
    pub(super) channels: [usize; 2],
    /// What it multiplies.
    pub(super) operand: Operand,
}

impl Shape {
    /// Rows and depth of the product that takes most of its time.
    fn product(&self) -> [usize; 2] {
        let [inputs, outputs] = self.channels;
        match self.kind {
            Kind::Down => [outputs, DEPTH.min(inputs * 9)],
            kind if outputs <= FEW_CHANNELS => [outputs * kind.side() * kind.side(), inputs],
            kind => [outputs, DEPTH.min(inputs * kind.blocks().len())],
        }
    }
}

/// Kernels by product, as found on a processor.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Found {
    processor: String,
    /// Version of this program: another one may have another tract.
    program: String,
    kernels: BTreeMap<String, String>,
}

/// Finds kernels, and remembers.
#[derive(Debug)]
pub(super) struct Kernels {
    suitable: [(Operand, Vec<Kernel>); 3],
    file: Option<PathBuf>,
    found: Found,
    started: Instant,
    /// Nothing is measured.
    by_rule: bool,
    changed: bool,
}

impl Kernels {
    /// With what is known from before; `by_rule`: neither that nor measuring counts, but tract's rules, and
    /// where they name none that fits the first that does.
    pub(super) fn open(file: Option<&Path>, by_rule: bool) -> Self {
        let file = file.filter(|_| !by_rule);
        let processor = processor();
        let known = file.and_then(|file| std::fs::read(file).ok());
        let known = known.and_then(|text| serde_json::from_slice::<Found>(&text).ok());
        let program = env!("CARGO_PKG_VERSION");
        let known =
            known.filter(|known| (&*known.processor, &*known.program) == (&*processor, program));
        let mut found = known.unwrap_or(Found {
            processor,
            program: program.to_owned(),
            ..Found::default()
        });
        let suitable = [Operand::F32, Operand::F16, Operand::I8]
            .map(|operand| (operand, Kernel::suitable(operand)));
        let all = suitable.iter().flat_map(|(_, kernels)| kernels);
        let names: Vec<&str> = all.map(Kernel::name).chain([DIRECT, PANELS]).collect();
        let before = found.kernels.len();
        // What nobody has, of another version of tract's, would stay for good.
        found.kernels.retain(|_, name| names.contains(&&**name));
        Self {
            changed: found.kernels.len() < before,
            suitable,
            file: file.map(Path::to_owned),
            found,
            started: Instant::now(),
            by_rule,
        }
    }

    /// Whether the processor multiplies 8-bit values faster than f32s.
    pub(super) fn integers_pay(&self) -> bool {
        let suitable = of(&self.suitable, Operand::I8);
        suitable.iter().any(Kernel::takes_fours)
    }

    /// Whether there is one for a layer.
    pub(super) fn any(&self, shape: &Shape) -> bool {
        let suitable = of(&self.suitable, shape.operand);
        suitable.iter().any(|kernel| begins(kernel, shape))
    }

    /// A layer, the way it is fastest.
    pub(super) fn layer(&mut self, definition: &Definition<'_>) -> TractResult<Layer> {
        let Definition { kind, channels, .. } = *definition;
        let shape = Shape {
            kind,
            channels,
            operand: definition.operand(),
        };
        if !definition.can_be_direct() {
            return Layer::by_panels(definition, self.choose(&shape)?);
        }
        // By panels the few outputs' products would be added up in another order, and 8-bit values as f32s are for here alone.
        if definition.few() || definition.by_levels() || self.by_rule {
            return Layer::direct(definition);
        }
        let [inputs, outputs] = channels;
        let key = format!("{kind:?} {inputs}→{outputs}");
        match self.found.kernels.get(&key).map(String::as_str) {
            Some(DIRECT) => return Layer::direct(definition),
            Some(PANELS) => return Layer::by_panels(definition, self.choose(&shape)?),
            _ => (),
        }
        let panels = Layer::by_panels(definition, self.choose(&shape)?)?;
        if self.started.elapsed() > LIMIT {
            return Ok(panels);
        }
        let direct = Layer::direct(definition)?;
        let better = is_better(&direct, &panels, &shape)?;
        let way = if better { DIRECT } else { PANELS };
        tracing::debug!(layer = key, way, "way chosen");
        self.found.kernels.insert(key, way.to_owned());
        self.changed = true;
        Ok(if better { direct } else { panels })
    }

    /// The kernel for a layer.
    fn choose(&mut self, shape: &Shape) -> TractResult<Kernel> {
        let [rows, depth] = shape.product();
        let key = match shape.operand {
            Operand::F32 => format!("{rows}×{depth}"),
            Operand::F16 => format!("{rows}×{depth} f16"),
            Operand::I8 => format!("{rows}×{depth} int8"),
        };
        let suitable = of(&self.suitable, shape.operand);
        let begins = |kernel: &Kernel| begins(kernel, shape);
        let usable = || suitable.iter().filter(|kernel| begins(kernel));
        let named = |name: &String| usable().find(|kernel| kernel.name() == name);
        if let Some(kernel) = self.found.kernels.get(&key).and_then(named) {
            return Ok(kernel.clone());
        }
        let mut all = usable();
        if let (Some(only), None) = (all.next(), all.next()) {
            let only = only.clone();
            self.remember(key, &only);
            return Ok(only);
        }
        let columns = (PRODUCTS / (rows * depth)).clamp(96, 1_536);
        let size = [rows, depth, columns];
        let rule = Kernel::by_rule(suitable, size);
        if (self.by_rule || self.started.elapsed() > LIMIT)
            && let Some(kernel) = rule
            && begins(kernel)
        {
            return Ok(kernel.clone());
        }
        if self.by_rule {
            let kernel = usable().next();
            return Ok(kernel
                .context("tract has no kernel for this processor")?
                .clone());
        }
        // Whichever is chosen, a frame's scores must be the same to the last bit: what tract's rules choose sets the order
        // in which products are added up, and a kernel that adds them up otherwise is none for us.
        let ruled = rule.and_then(|kernel| measure(kernel, size, Duration::ZERO).ok());
        let mut expected = ruled.map(|(_, values)| values);
        let mut best: Option<(Duration, &Kernel)> = None;
        for kernel in usable() {
            let limit = best.map_or(Duration::MAX, |(time, _)| time * 3 / 2);
            // One that cannot do it is none.
            let Ok((taken, values)) = measure(kernel, size, limit) else {
                continue;
            };
            let alike = *expected.get_or_insert_with(|| values.clone()) == values;
            if alike && best.is_none_or(|(time, _)| taken < time) {
                best = Some((taken, kernel));
            }
        }
        let (_, kernel) = best.context("tract has no kernel for this processor")?;
        tracing::debug!(product = key, kernel = kernel.name(), "kernel chosen");
        let kernel = kernel.clone();
        self.remember(key, &kernel);
        Ok(kernel)
    }

    fn remember(&mut self, key: String, kernel: &Kernel) {
        self.found.kernels.insert(key, kernel.name().to_owned());
        self.changed = true;
    }

    /// Keeps what was found, for the next start. That it cannot be kept costs the next start some time, nothing more.
    pub(super) fn keep(&self) {
        let Some(file) = self.file.as_ref().filter(|_| self.changed) else {
            return;
        };
        let written = serde_json::to_vec_pretty(&self.found)
            .map_err(|error| error.to_string())
            .and_then(|text| write_atomic(file, &text).map_err(|error| error.to_string()));
        if let Err(error) = written {
            tracing::warn!(error, "the choice of kernels cannot be kept");
        }
    }
}

/// The kernels for such operands.
fn of(suitable: &[(Operand, Vec<Kernel>)], operand: Operand) -> &[Kernel] {
    let mut suitable = suitable.iter().filter(|(known, _)| *known == operand);
    suitable.next().map_or(&[], |(_, kernels)| kernels)
}

/// Whether a layer's products may begin where they do: a transposed convolution's at multiples of its inputs.
fn begins(kernel: &Kernel, shape: &Shape) -> bool {
    shape.kind == Kind::Down || kernel.begins_at(shape.channels[0])
}

/// Whether a layer that needs no panels is faster than one by panels, and gives the same to the last bit. Where they are within 5 %, it is:
/// in a frame, whose image the cache does not hold as it does here, filling panels takes longer.
fn is_better(direct: &Layer, panels: &Layer, shape: &Shape) -> TractResult<bool> {
    let [inputs, outputs] = shape.channels;
    let side = shape.kind.side();
    // As narrow as a frame is where there are most channels, and high enough for several bands of the widest layers.
    let (width, row) = (33, 33 * inputs * outputs * side * side);
    let height = (PRODUCTS / row).clamp(12, 64);
    let [height, width] = match shape.kind {
        Kind::Down => [2 * height - 1, 2 * width - 1],
        Kind::Up | Kind::WideUp => [height, width],
    };
    let value = |index: usize| (index * 7_919 % 10_007) as f32 / 7_001.0 - 0.7;
    let values: Vec<f32> = (0..inputs * height * width).map(value).collect();
    let image = Image::of_planes(&values, [inputs, height, width])?;
    let pool = Pool::default();
    let mut best = [Duration::MAX; 2];
    let mut outputs = [Output::default(), Output::default()];
    for _ in 0..TURNS {
        for ((layer, best), out) in [direct, panels].iter().zip(&mut best).zip(&mut outputs) {
            let started = Instant::now();
            layer.run(&image, &(0..usize::MAX), &pool, out)?;
            *best = started.elapsed().min(*best);
        }
    }
    let [direct, panels] = outputs.map(|output| output.planes());
    Ok(best[0] < best[1] * 21 / 20 && direct? == panels?)
}

/// The time that a product takes, and what comes out. A first run (which warms up, too) of more than `limit` is enough.
fn measure(kernel: &Kernel, size: [usize; 3], limit: Duration) -> TractResult<(Duration, Tensor)> {
    match kernel.operand() {
        // Values with all their bits in use.
        Operand::F32 => {
            let value = |index: usize| (index * 7_919 % 10_007) as f32 / 7_001.0 - 0.7;
            let after = After::new(&vec![0.1; size[0]], Some(0.01), Operand::F32);
            measured(kernel, size, limit, value, Some(&after))
        }
        // Small enough that sums of them are numbers.
        Operand::F16 => {
            let value = |index: usize| f16::from_f32((index * 7_919 % 1_009) as f32 / 7_001.0);
            let after = After::new(&vec![0.1; size[0]], Some(0.01), Operand::F16);
            measured(kernel, size, limit, value, Some(&after))
        }
        Operand::I8 => {
            let value = |index: usize| (index * 7_919 % 251) as u8 as i8;
            measured(kernel, size, limit, value, None)
        }
    }
}

fn measured<T: Value>(
    kernel: &Kernel,
    [rows, depth, columns]: [usize; 3],
    limit: Duration,
    value: impl Fn(usize) -> T,
    after: Option<&After>,
) -> TractResult<(Duration, Tensor)> {
    let weights: Vec<T> = (0..rows * depth).map(&value).collect();
    let weights = kernel.pack_weights(rows, depth, &weights)?;
    let mut panels = kernel.panels(depth, columns)?;
    let mut filling = panels.filling()?;
    for row in 0..depth {
        let line: Vec<T> = (row * 31..row * 31 + columns).map(&value).collect();
        filling.set_row(row, &line)?;
    }
    let mut out = Tensor::zero_dt(kernel.operand().sum(), &[rows * columns])?;
    let mut best = Duration::MAX;
    for _ in 0..RUNS {
        let started = Instant::now();
        kernel.multiply(&weights, &panels, 0, columns, after, &mut out)?;
        best = best.min(started.elapsed());
        if best > limit {
            break;
        }
    }
    Ok((best, out))
}

/// The processor's name.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = |key: &str| {
        let line = info.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(':'))
            .map_or("", |(_, value)| value.trim())
    };
    let fields = [
        "model name",
        "cpu family",
        "model\t",
        "stepping",
        "CPU part",
    ]
    .map(line);
    format!("{} {}", std::env::consts::ARCH, fields.join(" "))
}
