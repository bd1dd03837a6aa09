//! The list of scenarios. A new one is a function in a file here and an entry of `ALL`.

mod capture;
mod delivery;
mod faults;
mod inspect;
mod smoke;
mod update;

use super::rig::Scenario;

/// All scenarios, in the order in which they run.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "boot",
        run: smoke::boot,
    },
    Scenario {
        name: "program",
        run: smoke::program,
    },
    Scenario {
        name: "loopback",
        run: smoke::loopback,
    },
    Scenario {
        name: "vivid",
        run: smoke::vivid,
    },
    Scenario {
        name: "gpio",
        run: smoke::gpio,
    },
    Scenario {
        name: "tcp",
        run: smoke::tcp,
    },
    Scenario {
        name: "serial",
        run: smoke::serial,
    },
    Scenario {
        name: "power-cut",
        run: smoke::power_cut,
    },
    Scenario {
        name: "recording",
        run: capture::recording,
    },
    Scenario {
        name: "reject",
        run: inspect::reject,
    },
    Scenario {
        name: "triggered",
        run: inspect::triggered,
    },
    Scenario {
        name: "encoder",
        run: inspect::encoder,
    },
    Scenario {
        name: "outage",
        run: inspect::outage,
    },
    Scenario {
        name: "camera-faults",
        run: capture::faults,
    },
    Scenario {
        name: "faults",
        run: faults::all,
    },
    Scenario {
        name: "links",
        run: delivery::links,
    },
    Scenario {
        name: "cuts",
        run: delivery::cuts,
    },
    Scenario {
        name: "flash-cuts",
        run: update::cuts,
    },
];
