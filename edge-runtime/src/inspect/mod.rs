//! Pure stages from frame to verdict: no files, clocks, threads or devices.

pub mod areas;
pub mod cells;
pub mod drift;
pub mod frame;
pub mod map;
pub mod normal_map;
pub mod preprocess;
pub mod region;
pub mod roi;
pub mod score;
pub mod texture;
pub mod tile;
pub mod variation;
pub mod verdict;
