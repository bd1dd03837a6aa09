//! Autotunes each layer: benchmarks both code paths and tract's matrix kernels on the model's own
//! shapes, and picks the fastest that gives the same bits.
//!
//! tract's own rules were measured on other machines and do not fit every processor. If the caller
//! names a file, the choices are cached there for the next start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tract_onnx::tract_core::internal::*;

use super::definition::{Definition, FEW_CHANNELS, Kind};
use super::gemm::{Epilogue, Kernel};
use super::image::{Image, Output, Value};
use super::layer::Layer;
use super::operand::Operand;
use super::pool::Pool;
use crate::io::atomic::write_atomic;

/// Multiply-adds of a benchmarked product: enough to fill the caches as a frame does, few enough to
/// try all kernels.
const PRODUCTS: usize = 8 << 20;
/// Runs of each kernel for each shape; the fastest one is compared.
const RUNS: usize = 4;
/// Runs of each code path of a layer.
const TURNS: usize = 3;
/// Deepest product to benchmark: more depth does not change which kernel is fastest.
const DEPTH: usize = 576;
/// Total time after which nothing more is benchmarked.
const LIMIT: Duration = Duration::from_secs(2);

/// Cached choice: the direct code path.
const DIRECT: &str = "direct";
/// Cached choice: matrix products over panels.
const PANELS: &str = "panels";

/// The shape of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Its kind.
    pub(super) kind: Kind,
    /// Input channels and output channels.
    pub(super) channels: [usize; 2],
    /// Type of the operands.
    pub(super) operand: Operand,
}

impl Shape {
    /// Rows and depth of the product that takes most of the layer's time.
    fn product(&self) -> [usize; 2] {
        let [inputs, outputs] = self.channels;
        match self.kind {
            Kind::Down => [outputs, DEPTH.min(inputs * 9)],
            kind if outputs <= FEW_CHANNELS => [outputs * kind.side() * kind.side(), inputs],
            kind => [outputs, DEPTH.min(inputs * kind.shifts().len())],
        }
    }
}

/// What was chosen on a processor, as the cache file stores it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Choices {
    processor: String,
    /// Version of this program, since another version may contain another tract.
    program: String,
    kernels: BTreeMap<String, String>,
}

/// Chooses code paths and kernels, and remembers the choices.
#[derive(Debug)]
pub(super) struct Autotuner {
    suitable: [(Operand, Vec<Kernel>); 3],
    file: Option<PathBuf>,
    choices: Choices,
    started: Instant,
    /// Choose by tract's rules only; neither benchmark nor read the cache.
    by_rule: bool,
    changed: bool,
}

impl Autotuner {
    /// Reads the cached choices. With `by_rule`, neither these nor benchmarks are used but tract's
    /// rules, and the first kernel that fits where the rules name none that does.
    pub(super) fn open(file: Option<&Path>, by_rule: bool) -> Self {
        let file = file.filter(|_| !by_rule);
        let processor = processor();
        let known = file.and_then(|file| std::fs::read(file).ok());
        let known = known.and_then(|text| serde_json::from_slice::<Choices>(&text).ok());
        let program = env!("CARGO_PKG_VERSION");
        let known =
            known.filter(|known| (&*known.processor, &*known.program) == (&*processor, program));
        let mut choices = known.unwrap_or(Choices {
            processor,
            program: program.to_owned(),
            ..Choices::default()
        });
        let suitable = [Operand::F32, Operand::F16, Operand::I8]
            .map(|operand| (operand, Kernel::suitable(operand)));
        let all = suitable.iter().flat_map(|(_, kernels)| kernels);
        let names: Vec<&str> = all.map(Kernel::name).chain([DIRECT, PANELS]).collect();
        let before = choices.kernels.len();
        // Kernels of another version of tract would otherwise stay in the file for good.
        choices.kernels.retain(|_, name| names.contains(&&**name));
        Self {
            changed: choices.kernels.len() < before,
            suitable,
            file: file.map(Path::to_owned),
            choices,
            started: Instant::now(),
            by_rule,
        }
    }

    /// Whether this processor multiplies 8-bit values faster than f32.
    pub(super) fn prefers_integers(&self) -> bool {
        let suitable = kernels_for(&self.suitable, Operand::I8);
        suitable.iter().any(Kernel::has_dot_products)
    }

    /// Whether any kernel fits a layer.
    pub(super) fn has_kernel(&self, shape: &Shape) -> bool {
        let suitable = kernels_for(&self.suitable, shape.operand);
        suitable.iter().any(|kernel| can_start(kernel, shape))
    }

    /// Compiles a layer with the code path and kernel that are fastest for it.
    pub(super) fn layer(&mut self, definition: &Definition<'_>) -> TractResult<Layer> {
        let Definition { kind, channels, .. } = *definition;
        let shape = Shape {
            kind,
            channels,
            operand: definition.operand(),
        };
        if !definition.can_be_direct() {
            return Layer::by_panels(definition, self.choose_kernel(&shape)?);
        }
        // With few outputs, panels would sum products in another order, and only the direct path
        // knows levels stored as f32.
        if definition.has_few_outputs() || definition.uses_levels() || self.by_rule {
            return Layer::direct(definition);
        }
        let [inputs, outputs] = channels;
        let key = format!("{kind:?} {inputs}→{outputs}");
        match self.choices.kernels.get(&key).map(String::as_str) {
            Some(DIRECT) => return Layer::direct(definition),
            Some(PANELS) => return Layer::by_panels(definition, self.choose_kernel(&shape)?),
            _ => (),
        }
        let panels = Layer::by_panels(definition, self.choose_kernel(&shape)?)?;
        if self.started.elapsed() > LIMIT {
            return Ok(panels);
        }
        let direct = Layer::direct(definition)?;
        let better = prefers_direct(&direct, &panels, &shape)?;
        let path = if better { DIRECT } else { PANELS };
        tracing::debug!(layer = key, path, "code path chosen");
        self.choices.kernels.insert(key, path.to_owned());
        self.changed = true;
        Ok(if better { direct } else { panels })
    }

    /// The kernel for a layer.
    fn choose_kernel(&mut self, shape: &Shape) -> TractResult<Kernel> {
        let [rows, depth] = shape.product();
        let key = match shape.operand {
            Operand::F32 => format!("{rows}×{depth}"),
            Operand::F16 => format!("{rows}×{depth} f16"),
            Operand::I8 => format!("{rows}×{depth} int8"),
        };
        let suitable = kernels_for(&self.suitable, shape.operand);
        let can_start = |kernel: &Kernel| can_start(kernel, shape);
        let usable = || suitable.iter().filter(|kernel| can_start(kernel));
        let named = |name: &String| usable().find(|kernel| kernel.name() == name);
        if let Some(kernel) = self.choices.kernels.get(&key).and_then(named) {
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
            && can_start(kernel)
        {
            return Ok(kernel.clone());
        }
        if self.by_rule {
            let kernel = usable().next();
            return Ok(kernel
                .context("tract has no kernel for this processor")?
                .clone());
        }
        // The choice must not change a frame's score by a single bit. The kernel that tract's rules
        // select defines the order of summation; one that sums in another order is not used.
        let ruled = rule.and_then(|kernel| benchmark(kernel, size, Duration::ZERO).ok());
        let mut expected = ruled.map(|(_, values)| values);
        let mut best: Option<(Duration, &Kernel)> = None;
        for kernel in usable() {
            let limit = best.map_or(Duration::MAX, |(time, _)| time * 3 / 2);
            // A kernel that fails is not used.
            let Ok((taken, values)) = benchmark(kernel, size, limit) else {
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
        self.choices.kernels.insert(key, kernel.name().to_owned());
        self.changed = true;
    }

    /// Caches the choices for the next start. If that fails, the next start only takes longer.
    pub(super) fn save(&self) {
        let Some(file) = self.file.as_ref().filter(|_| self.changed) else {
            return;
        };
        let written = serde_json::to_vec_pretty(&self.choices)
            .map_err(|error| error.to_string())
            .and_then(|text| write_atomic(file, &text).map_err(|error| error.to_string()));
        if let Err(error) = written {
            tracing::warn!(error, "the choice of kernels cannot be cached");
        }
    }
}

/// The kernels for operands of this type.
fn kernels_for(suitable: &[(Operand, Vec<Kernel>)], operand: Operand) -> &[Kernel] {
    let mut suitable = suitable.iter().filter(|(known, _)| *known == operand);
    suitable.next().map_or(&[], |(_, kernels)| kernels)
}

/// Whether a kernel can start where the layer's products do. Those of a transposed convolution
/// start at multiples of its input channels.
fn can_start(kernel: &Kernel, shape: &Shape) -> bool {
    shape.kind == Kind::Down || kernel.can_start_at(shape.channels[0])
}

/// Whether the direct path is faster than panels, with the same bits. Up to 5 % slower counts as
/// faster: in a frame, whose image does not fit the cache as it does here, filling panels takes
/// longer.
fn prefers_direct(direct: &Layer, panels: &Layer, shape: &Shape) -> TractResult<bool> {
    let [inputs, outputs] = shape.channels;
    let side = shape.kind.side();
    // As narrow as a frame where it has most channels, and high enough for several bands of the
    // widest layers.
    let (width, row) = (33, 33 * inputs * outputs * side * side);
    let height = (PRODUCTS / row).clamp(12, 64);
    let [height, width] = match shape.kind {
        Kind::Down => [2 * height - 1, 2 * width - 1],
        Kind::Up | Kind::WideUp => [height, width],
    };
    let value = |index: usize| (index * 7_919 % 10_007) as f32 / 7_001.0 - 0.7;
    let values: Vec<f32> = (0..inputs * height * width).map(value).collect();
    let image = Image::from_planes(&values, [inputs, height, width])?;
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

/// The time of a product, and its result. Stops after the first run, which also warms up, if that
/// takes longer than `limit`.
fn benchmark(
    kernel: &Kernel,
    size: [usize; 3],
    limit: Duration,
) -> TractResult<(Duration, Tensor)> {
    match kernel.operand() {
        // Values that use all their bits.
        Operand::F32 => {
            let value = |index: usize| (index * 7_919 % 10_007) as f32 / 7_001.0 - 0.7;
            let epilogue = Epilogue::new(&vec![0.1; size[0]], Some(0.01), Operand::F32);
            benchmark_with(kernel, size, limit, value, Some(&epilogue))
        }
        // Small enough that the sums do not overflow.
        Operand::F16 => {
            let value = |index: usize| f16::from_f32((index * 7_919 % 1_009) as f32 / 7_001.0);
            let epilogue = Epilogue::new(&vec![0.1; size[0]], Some(0.01), Operand::F16);
            benchmark_with(kernel, size, limit, value, Some(&epilogue))
        }
        Operand::I8 => {
            let value = |index: usize| (index * 7_919 % 251) as u8 as i8;
            benchmark_with(kernel, size, limit, value, None)
        }
    }
}

fn benchmark_with<T: Value>(
    kernel: &Kernel,
    [rows, depth, columns]: [usize; 3],
    limit: Duration,
    value: impl Fn(usize) -> T,
    epilogue: Option<&Epilogue>,
) -> TractResult<(Duration, Tensor)> {
    let weights: Vec<T> = (0..rows * depth).map(&value).collect();
    let weights = kernel.pack_weights(rows, depth, &weights)?;
    let mut panels = kernel.panels(depth, columns)?;
    let mut writer = panels.writer()?;
    for row in 0..depth {
        let line: Vec<T> = (row * 31..row * 31 + columns).map(&value).collect();
        writer.set_row(row, &line)?;
    }
    let mut out = Tensor::zero_dt(kernel.operand().sum(), &[rows * columns])?;
    let mut best = Duration::MAX;
    for _ in 0..RUNS {
        let started = Instant::now();
        kernel.multiply(&weights, &panels, 0, columns, epilogue, &mut out)?;
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
