//! Installs kernel modules with their dependencies, and writes modules.dep for modprobe.
//!
//! The dependencies are read from the modules themselves: the packages have no list of them,
//! because depmod makes it at installation.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Adds every module (.ko) below `folder` to `found`, by its normalised name.
pub(crate) fn collect(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            found.insert(normalised(&stem), path);
        }
    }
    Ok(())
}

/// Copies the modules `wanted`, with all that they depend on, and modules.dep into a new folder.
pub(crate) fn install(
    found: &BTreeMap<String, PathBuf>,
    wanted: &[&str],
    into: &Path,
) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("creating {}", into.display()))?;
    let mut needs = BTreeMap::new();
    let mut open: Vec<String> = wanted.iter().map(|name| normalised(name)).collect();
    while let Some(name) = open.pop() {
        if needs.contains_key(&name) {
            continue;
        }
        let path = found
            .get(&name)
            .with_context(|| format!("the kernel has no module {name}"))?;
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let depends = depends(&bytes);
        fs::write(into.join(format!("{name}.ko")), bytes)?;
        open.extend(depends.iter().cloned());
        needs.insert(name, depends);
    }
    let mut text = String::new();
    for name in needs.keys() {
        let mut all = Vec::new();
        closure(name, &needs, &mut all);
        let files = all.iter().map(|module| format!(" {module}.ko"));
        text.push_str(&format!("{name}.ko:{}\n", files.collect::<String>()));
    }
    let list = into.join("modules.dep");
    fs::write(&list, text).with_context(|| format!("writing {}", list.display()))
}

/// Adds the modules that `name` needs to `all`, each before those that it needs itself.
fn closure(name: &str, needs: &BTreeMap<String, Vec<String>>, all: &mut Vec<String>) {
    for next in needs.get(name).into_iter().flatten() {
        all.retain(|module| module != next);
        all.push(next.clone());
        closure(next, needs, all);
    }
}

/// The modules that a module needs directly. It names them as `depends=a,b` among NUL-terminated
/// strings.
fn depends(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|part| part == key) else {
        return Vec::new();
    };
    let list = module[at + key.len()..].split(|byte| *byte == 0).next();
    let list = String::from_utf8_lossy(list.unwrap_or_default()).into_owned();
    list.split(',')
        .filter(|name| !name.is_empty())
        .map(normalised)
        .collect()
}

/// The name of a module with underscores: `crc32c-intel` and `crc32c_intel` are the same module.
fn normalised(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dependency_is_listed_once_and_after_the_modules_that_need_it() {
        assert_eq!(
            depends(b"\x7fELF\0depends=mc,v4l2-tpg\0x"),
            ["mc", "v4l2_tpg"]
        );
        assert!(depends(b"\0depends=\0name=x\0").is_empty());
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let needs = BTreeMap::from([
            ("a".to_owned(), list(&["c", "b"])),
            ("b".to_owned(), list(&["c"])),
            ("c".to_owned(), list(&[])),
        ]);
        let mut all = Vec::new();
        closure("a", &needs, &mut all);
        assert_eq!(all, ["b", "c"]);
    }
}
