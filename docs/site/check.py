"""python docs/site/check.py FOLDER: every link inside the site leads somewhere, anchors too, and no page loads from the network."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
# Kinds of <link rel=...> that fetch nothing.
NOT_LOADED = {"canonical", "next", "prev", "search", "index", "author", "copyright"}


class Page(HTMLParser):
    """A page's anchors, its links, and what a browser fetches to show it."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded = {""}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        """Sort a tag's addresses."""
        attributes = dict(attributes)
        self.anchors |= {attributes[key] for key in ("id", "name") if attributes.get(key)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag in LOADS and attributes.get(LOADS[tag]) and attributes.get("rel") not in NOT_LOADED:
            self.loaded.append(attributes[LOADS[tag]])


def faults(folder):
    """What is wrong with a site, a line each; and how many pages and links it has."""
    folder = folder.resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    found, links = [], 0
    for path, page in pages.items():
        for address in page.links + page.loaded:
            where = urlsplit(address)
            if where.scheme or where.netloc:
                if address in page.loaded and where.scheme != "data":
                    found.append(f"{path.relative_to(folder)}: loads {address}")
                continue
            links += 1
            target = (path.parent / unquote(where.path)).resolve() if where.path else path
            if not target.is_file():
                found.append(f"{path.relative_to(folder)}: {address} is not there")
            elif target in pages and unquote(where.fragment) not in pages[target].anchors:
                found.append(f"{path.relative_to(folder)}: {address}: no such anchor")
    for path in [*folder.rglob("*.css"), *folder.rglob("*.js")]:
        text = path.read_text(encoding="utf-8")
        found += [f"{path.relative_to(folder)}: loads from the network" for sign in SIGNS if sign in text]
    return found, len(pages), links


SIGNS = ("url(http", "url('http", 'url("http', "url(//", "@import 'http", '@import "http')

if __name__ == "__main__":
    found, pages, links = faults(Path(sys.argv[1]))
    print(*found, f"{pages} pages, {links} links inside, {len(found)} faults", sep="\n")
    sys.exit(bool(found))
