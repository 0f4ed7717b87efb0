"""Text found on this machine: source code and documentation of Python and of installed packages under free licences.

Held-out text comes from whole packages of which nothing is trained on. What is chosen depends on what is installed, and
then on nothing else: the order is that of the SHA-256 of names and paths.
"""

import collections
import concurrent.futures
import dataclasses
import email
import hashlib
import importlib.metadata
import os
import pathlib
import re
import sysconfig
import time

# Names of licences as metadata spells them: SPDX identifiers, Trove classifiers, and what people wrote before either.
FREE = re.compile(r"\b(MIT|(0|New |Modified |\d-Clause )?BSD|Apache|PSF|Python-2|Python Software Foundation|ISC|Zlib|CC0"
                  r"|Unlicense|HPND|BSL)", re.IGNORECASE)
COPYLEFT = re.compile(r"GPL|General Public", re.IGNORECASE)
SUFFIXES = (".py", ".md", ".rst")
LICENCE_NAME = re.compile(r"(LICEN[CS]E|COPYING|NOTICE)", re.IGNORECASE)
# Copies of other packages, which could carry a held-out package's text into training; and hidden folders.
LEFT_OUT = re.compile(r"(^|/)(_?vendor(ed|s)?|externals?|third_party|\.[^/]+)/")
LARGEST_FILE = 1 << 20
# Tables of numbers and encoded data have long lines; code and prose do not.
LONGEST_MEAN_LINE = 200
# A slow disk costs text, not the machine's time.
READ_SECONDS = 100

HELDOUT_PACKAGE_BYTES = 20_000
HELDOUT_DOCUMENTATION_BYTES = 8_000
HELDOUT_FILE_BYTES = range(500, 12_000)
# Packages that can give their share, and whose loss training does not feel.
HELDOUT_PACKAGE_SIZES = range(60_000, 4_000_000)
SAME_LINE_BYTES = 30


@dataclasses.dataclass
class Package:
    name: str
    version: str
    licence: str
    files: list  # (path, name that is the same on every machine), in the order of the name's digest
    licence_files: list


@dataclasses.dataclass
class Corpus:
    training: bytes
    heldout: bytes
    heldout_licences: str
    heldout_sources: list  # (package, version, licence, bytes, names of files)
    training_sources: list  # (package, version, licence, bytes), largest first
    overlap: float  # share of held-out bytes in lines of SAME_LINE_BYTES or more that also occur in training


def digest(name):
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def free_licence(metadata):
    """The licence's name if all its terms are free without copyleft, else None."""
    expression = metadata.get("License-Expression")
    classifiers = [name.rpartition(" :: ")[2] for name in metadata.get_all("Classifier") or []
                   if name.startswith("License :: ") and name != "License :: OSI Approved"]
    field = (metadata.get("License") or "").strip()
    # The field can hold a whole licence's text, which says nothing on its own.
    stated = expression or " AND ".join(classifiers) or ("" if "\n" in field else field)
    terms = [term for term in re.split(r"\s*(?:\(|\)|\bAND\b|\bOR\b)\s*", stated) if term]
    return stated if terms and all(map(FREE.search, terms)) and not COPYLEFT.search(stated) else None


def is_text(name):
    return ((name.endswith(SUFFIXES) or name.endswith(".dist-info/METADATA")) and not LEFT_OUT.search(name)
            and not LICENCE_NAME.match(os.path.basename(name)))


def installed_packages():
    seen = set()
    for distribution in importlib.metadata.distributions():
        metadata = email.message_from_string(distribution.read_text("METADATA") or "")
        name, licence = metadata.get("Name"), free_licence(metadata)
        if not name or name.lower() in seen or licence is None:
            continue
        seen.add(name.lower())
        listed = [(distribution.locate_file(file), file.as_posix()) for file in distribution.files or []]
        inside = [file for file in listed if ".." not in file[1].split("/")]
        files = sorted((file for file in inside if is_text(file[1])), key=lambda file: digest(file[1]))
        licences = sorted(file for file in inside
                          if ".dist-info/" in file[1] and LICENCE_NAME.search(os.path.basename(file[1])))
        yield Package(name, distribution.version, licence, files, [path for path, _ in licences])


def standard_library():
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in ("site-packages", "dist-packages", "__pycache__")]
        files += [(path, path.relative_to(root).as_posix()) for path in (pathlib.Path(folder, name) for name in names)]
    files = sorted((file for file in files if is_text(file[1])), key=lambda file: digest(file[1]))
    return Package("Python standard library", sysconfig.get_python_version(), "PSF-2.0", files, [])


def read_utf8(path):
    """The file's bytes, None if they are too many, cannot be read, or are not UTF-8."""
    try:
        if os.path.getsize(path) > LARGEST_FILE:
            return None
        with open(path, "rb") as file:
            data = file.read()
        data.decode()
        return data
    except (OSError, ValueError):
        return None


def read_text(path):
    """A file's text to learn from, None if there is none. A METADATA gives the description of its package."""
    data = read_utf8(path)
    if data is not None and os.path.basename(path) == "METADATA":
        data = data.partition(b"\n\n")[2].lstrip()
    if not data or b"\0" in data or len(data) > LONGEST_MEAN_LINE * (data.count(b"\n") + 1):
        return None
    return data if data.endswith(b"\n") else data + b"\n"


class Texts:
    """Distinct texts of files; a file whose text was given before gives None."""

    def __init__(self):
        self.seen = set()

    def distinct(self, data):
        if data is None or (key := hashlib.sha256(data).digest()) in self.seen:
            return None
        self.seen.add(key)
        return data


def hold_out(packages, size, texts):
    """Takes packages out of `packages` until their shares have `size` bytes: (text, licences, sources)."""
    parts, licences, sources = [], collections.defaultdict(list), []
    for package in sorted(packages, key=lambda package: digest(package.name)):
        if sum(map(len, parts)) >= size:
            break
        licence_texts = [read_utf8(path) for path in package.licence_files]
        bytes_in_all = sum(os.path.getsize(path) for path, _ in package.files if os.path.exists(path))
        if not all(licence_texts) or not licence_texts or bytes_in_all not in HELDOUT_PACKAGE_SIZES:
            continue
        chosen, taken = [], 0
        for limit, suffixes in ((HELDOUT_DOCUMENTATION_BYTES, (".md", ".rst", "METADATA")),
                                (HELDOUT_PACKAGE_BYTES, (".py",))):
            for path, name in package.files:
                if taken < limit and name.endswith(suffixes):
                    data = texts.distinct(read_text(path))
                    if data and len(data) in HELDOUT_FILE_BYTES:
                        chosen.append((name, data))
                        taken += len(data)
        if taken < HELDOUT_PACKAGE_BYTES // 2:
            continue
        packages.remove(package)
        parts += [data for _, data in chosen]
        for text in licence_texts:
            licences[text.decode()].append(f"{package.name} {package.version}")
        sources.append((package.name, package.version, package.licence, taken, [name for name, _ in chosen]))
    notices = "".join(f"===== {', '.join(names)} =====\n\n{text}\n" for text, names in licences.items())
    return b"".join(parts), notices, sources


def same_lines(heldout, training):
    lines = collections.Counter(line for line in heldout.split(b"\n") if len(line) >= SAME_LINE_BYTES)
    common = set(lines).intersection(training.split(b"\n"))
    return sum(len(line) * lines[line] for line in common) / max(1, len(heldout))


def collect(training_bytes, heldout_bytes, say):
    """A Corpus of at most `training_bytes` and about `heldout_bytes`; `say` takes a line for the log."""
    start = time.monotonic()
    packages, texts = list(installed_packages()), Texts()
    heldout, notices, heldout_sources = hold_out(packages, heldout_bytes, texts)
    say(f"held out {len(heldout)} bytes of {len(heldout_sources)} packages, {time.monotonic() - start:.0f} s")

    packages.append(standard_library())
    files = sorted(((digest(name), path, package) for package in packages for path, name in package.files),
                   key=lambda file: file[0])
    parts, total, counted = [], 0, collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(8) as readers:
        for begin in range(0, len(files), 2048):
            if total >= training_bytes or time.monotonic() - start > READ_SECONDS:
                break
            some = files[begin:begin + 2048]
            for (_, _, package), data in zip(some, readers.map(lambda file: read_text(file[1]), some)):
                if total < training_bytes and (data := texts.distinct(data)):
                    parts.append(data)
                    total += len(data)
                    counted[package.name] += len(data)
    by_name = {package.name: package for package in packages}
    sources = [(name, by_name[name].version, by_name[name].licence, size) for name, size in counted.most_common()]
    training = b"".join(parts)
    say(f"read {total} bytes, {len(parts)} distinct of {len(files)} files, {time.monotonic() - start:.0f} s")
    return Corpus(training, heldout, notices, heldout_sources, sources, same_lines(heldout, training))
