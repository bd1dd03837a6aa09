//! Pure stages from frame to verdict: no files, clocks, threads or devices. Each file says in its
//! first lines what it takes and what it gives.

pub mod cells;
pub mod drift;
pub mod frame;
pub mod grain;
pub mod grid;
pub mod layer_statistics;
pub mod map;
pub mod normal_map;
pub mod places;
pub mod plausibility;
pub mod preprocess;
pub mod region;
pub mod roi;
pub mod score;
pub mod segmentation;
pub mod texture;
pub mod tile;
pub mod variation;
pub mod verdict;
