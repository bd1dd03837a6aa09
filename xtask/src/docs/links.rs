//! Dead links in Markdown files.
//!
//! In: the text of every Markdown file, and which paths exist. Out: each link whose file or heading
//! does not exist. Links to other sites are not followed; code is not searched for links.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, LinkType, Options, Parser, Tag, TagEnd};

/// The folder whose pages are rendered, apart from the rest of the repository.
const BOOK: &str = "docs/src";
/// The pages of the book, in the order of its chapters.
const SUMMARY: &str = "docs/src/SUMMARY.md";

/// A link that leads nowhere.
#[derive(Debug)]
pub(super) struct DeadLink {
    file: PathBuf,
    line: usize,
    target: String,
    reason: String,
}

impl fmt::Display for DeadLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        write!(
            f,
            "{file}:{}: `{}` — {}",
            self.line, self.target, self.reason
        )
    }
}

/// What the check needs to know of one file.
struct Page {
    anchors: HashSet<String>,
    /// Line numbers and targets, of links and images.
    links: Vec<(usize, String)>,
}

/// Checks all `texts`, whose paths are relative to the repository's root like those that `exists`
/// is asked about.
pub(super) fn dead_links(
    texts: &BTreeMap<PathBuf, String>,
    exists: impl Fn(&Path) -> bool,
) -> Vec<DeadLink> {
    let pages: BTreeMap<&Path, Page> = texts
        .iter()
        .map(|(path, text)| (path.as_path(), page(text)))
        .collect();
    let mut dead = Vec::new();
    for (file, page) in &pages {
        for (line, target) in &page.links {
            if let Some(reason) = problem(file, target, &pages, &exists) {
                dead.push(DeadLink {
                    file: file.to_path_buf(),
                    line: *line,
                    target: target.clone(),
                    reason,
                });
            }
        }
    }
    dead.extend(pages_without_chapter(&pages));
    dead
}

/// mdBook renders the pages that its summary lists; a link to any other page is dead in the book.
fn pages_without_chapter(pages: &BTreeMap<&Path, Page>) -> Vec<DeadLink> {
    let summary = Path::new(SUMMARY);
    let listed: HashSet<PathBuf> = pages
        .get(summary)
        .into_iter()
        .flat_map(|page| &page.links)
        .filter_map(|(_, target)| resolve(summary, target))
        .collect();
    pages
        .keys()
        .filter(|file| file.starts_with(BOOK) && **file != summary && !listed.contains(**file))
        .map(|file| DeadLink {
            file: file.to_path_buf(),
            line: 1,
            target: file.display().to_string(),
            reason: format!("{SUMMARY} does not list it, so the book does not have this page"),
        })
        .collect()
}

/// What is wrong with a link, if anything.
fn problem(
    file: &Path,
    target: &str,
    pages: &BTreeMap<&Path, Page>,
    exists: impl Fn(&Path) -> bool,
) -> Option<String> {
    if is_elsewhere(target) {
        return None;
    }
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    if path.starts_with('/') {
        return Some("starts with `/`: write it relative to this file".to_owned());
    }
    let wanted = match path {
        "" => file.to_owned(),
        path => match resolve(file, path) {
            Some(wanted) => wanted,
            None => return Some("leads out of the repository".to_owned()),
        },
    };
    if !pages.contains_key(wanted.as_path()) && !exists(&wanted) {
        return Some(format!("there is no {}", wanted.display()));
    }
    if file.starts_with(BOOK) && !wanted.starts_with(BOOK) {
        return Some(format!("leads out of {BOOK}, where the book has nothing"));
    }
    let anchor = percent_decoded(anchor?);
    match pages.get(wanted.as_path()) {
        Some(page) if page.anchors.contains(&anchor) => None,
        Some(_) => Some(format!(
            "no heading of {} has the anchor #{anchor}",
            wanted.display()
        )),
        None => Some("only Markdown files have anchors".to_owned()),
    }
}

/// Whether a target begins with a scheme (`https:`, `mailto:`) or a host.
fn is_elsewhere(target: &str) -> bool {
    let is_scheme = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_alphabetic())
            && text
                .chars()
                .all(|each| each.is_ascii_alphanumeric() || "+-.".contains(each))
    };
    target.starts_with("//")
        || target
            .split_once(':')
            .is_some_and(|(scheme, _)| is_scheme(scheme))
}

/// The path that a relative link means; `None` where it leads out of the repository.
fn resolve(file: &Path, target: &str) -> Option<PathBuf> {
    let mut path = file.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(&percent_decoded(target)).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir if path.pop() => {}
            _ => return None,
        }
    }
    Some(path)
}

/// `%20` and its like as the characters that they stand for.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let code = after.get(..2);
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(b'%');
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads a file's anchors and links.
fn page(text: &str) -> Page {
    let mut page = Page {
        anchors: HashSet::new(),
        links: Vec::new(),
    };
    // How often each slug came before.
    let mut slugs: HashMap<String, usize> = HashMap::new();
    let mut heading: Option<String> = None;
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS;
    for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
        let line = text[..range.start].matches('\n').count() + 1;
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let slug = slug(&heading.take().unwrap_or_default());
                let before = slugs.entry(slug.clone()).or_default();
                page.anchors.insert(match *before {
                    0 => slug,
                    count => format!("{slug}-{count}"),
                });
                *before += 1;
            }
            Event::Start(
                Tag::Link {
                    link_type,
                    dest_url,
                    ..
                }
                | Tag::Image {
                    link_type,
                    dest_url,
                    ..
                },
            ) if link_type != LinkType::Email => page.links.push((line, dest_url.into_string())),
            Event::Text(part) | Event::Code(part) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&part);
                }
            }
            Event::Html(tags) | Event::InlineHtml(tags) => {
                let links = ["href", "src"].map(|name| attributes(&tags, name));
                let links = links.into_iter().flatten();
                page.links.extend(links.map(|target| (line, target)));
                let anchors = ["id", "name"].map(|name| attributes(&tags, name));
                page.anchors.extend(anchors.into_iter().flatten());
            }
            _ => {}
        }
    }
    page
}

/// A heading's anchor by GitHub's rules: lower case, spaces as hyphens, punctuation dropped.
fn slug(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(|each| each.is_alphanumeric() || " -_".contains(*each))
        .map(|each| if each == ' ' { '-' } else { each })
        .collect()
}

/// The values of an attribute in HTML, written `name="value"`.
fn attributes(html: &str, name: &str) -> Vec<String> {
    let start = format!("{name}=\"");
    html.match_indices(&start)
        .filter(|(at, _)| html[..*at].ends_with(|before: char| before.is_whitespace()) || *at == 0)
        .filter_map(|(at, start)| html[at + start.len()..].split('"').next())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of these files, beside which `src/main.rs` and `docs/src/a b.png` exist.
    fn said(files: &[(&str, &str)]) -> Vec<String> {
        let texts = files
            .iter()
            .map(|(path, text)| (PathBuf::from(path), (*text).to_owned()))
            .collect();
        let others = ["src", "src/main.rs", "docs/src/a b.png"].map(Path::new);
        let dead = dead_links(&texts, |path| others.contains(&path));
        dead.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn links_to_files_headings_images_and_sites_are_good() {
        let readme = "# One\n[a](docs/guide.md) [b](docs/guide.md#two--three-1) [c](#one)\n\n\
            [d](./src/main.rs) [e](src) [f](https://example.org/x#y) <a@example.org> [g][g]\n\n\
            ![h](docs/src/a%20b.png) <img src=\"src/main.rs\"> [i](docs/guide.md#own)\n\n\
            [g]: docs/guide.md\n";
        let guide = "# Two — `three`!\n# Two — three\n<a id=\"own\"></a>\n[up](../README.md#one)\n";
        assert_eq!(
            said(&[("README.md", readme), ("docs/guide.md", guide)]),
            [""; 0]
        );
    }

    #[test]
    fn a_missing_file_is_named_with_its_line() {
        let readme = "# One\n\ntext ![a](no.png)\n\nand\n[b](src/../no.rs)\n";
        let expected = [
            "README.md:3: `no.png` — there is no no.png",
            "README.md:6: `src/../no.rs` — there is no no.rs",
        ];
        assert_eq!(said(&[("README.md", readme)]), expected);
        let guide = "[a](../../x.md) [b](/README.md)\n<a href=\"y.md\">c</a>\n";
        let expected = [
            "docs/guide.md:1: `../../x.md` — leads out of the repository",
            "docs/guide.md:1: `/README.md` — starts with `/`: write it relative to this file",
            "docs/guide.md:2: `y.md` — there is no docs/y.md",
        ];
        assert_eq!(said(&[("docs/guide.md", guide)]), expected);
    }

    #[test]
    fn a_missing_anchor_is_named() {
        let readme = "# One\n[a](#two) [b](guide.md#one) [c](src/main.rs#L3)\n";
        let expected = [
            "README.md:2: `#two` — no heading of README.md has the anchor #two",
            "README.md:2: `guide.md#one` — no heading of guide.md has the anchor #one",
            "README.md:2: `src/main.rs#L3` — only Markdown files have anchors",
        ];
        let guide = ("guide.md", "```sh\n# One\n```\n");
        assert_eq!(said(&[("README.md", readme), guide]), expected);
    }

    #[test]
    fn code_has_no_links() {
        let readme = "`[a](no.md)`\n\n```text\n[b](no.md)\n```\n\n    [c](no.md)\n";
        assert_eq!(said(&[("README.md", readme)]), [""; 0]);
    }

    #[test]
    fn the_book_has_all_its_pages_and_links_nothing_else() {
        let summary = ("docs/src/SUMMARY.md", "- [a](a.md)\n");
        let a = ("docs/src/a.md", "[b](b.md) [readme](../../README.md)\n");
        let files = [("README.md", ""), summary, a, ("docs/src/b.md", "")];
        let expected = [
            "docs/src/a.md:1: `../../README.md` — leads out of docs/src, where the book has nothing",
            "docs/src/b.md:1: `docs/src/b.md` — docs/src/SUMMARY.md does not list it, so the book \
             does not have this page",
        ];
        assert_eq!(said(&files), expected);
    }
}
