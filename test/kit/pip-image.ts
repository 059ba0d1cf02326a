import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { cachedFolder } from "./cache.ts";
import { DebianLayers, debianPlan } from "./debian-layers.ts";
import { type LocalImage, readLayout } from "./oci-layout.ts";

const groups = [["dash", "coreutils", "base-files", "libc-bin", "libstdc++6"], ["python3"]] as const;

/** What pip installs, a layer each, whole: versions are exact, and nothing is resolved. */
const requirements = [
  [
    "numpy==2.2.6",
    "pandas==2.3.3",
    "scikit-learn==1.7.2",
    "scipy==1.15.3",
    "joblib==1.5.2",
    "threadpoolctl==3.6.0",
    "python-dateutil==2.9.0.post0",
    "six==1.17.0",
    "pytz==2025.2",
    "tzdata==2025.2",
  ],
  [
    "pyarrow==20.0.0",
    "matplotlib==3.10.7",
    "contourpy==1.3.3",
    "cycler==0.12.1",
    "fonttools==4.60.1",
    "kiwisolver==1.4.9",
    "packaging==25.0",
    "pillow==12.0.0",
    "pyparsing==3.2.5",
    "sympy==1.14.0",
    "mpmath==1.3.0",
    "statsmodels==0.14.5",
    "patsy==1.0.2",
  ],
] as const;

const program = "import numpy, pandas, sklearn\nprint(sklearn.show_versions())\n";

/** The command that the benchmarks start. */
export const pipImports: readonly string[] = ["python3", "-c", "import numpy, pandas, sklearn"];

/**
 * An image as a Dockerfile makes it that installs a data scientist's packages with pip: Debian's Python, then a layer of
 * numpy, pandas and scikit-learn, a layer of more that the program does not read, the program. More than 600 MB
 * unpacked, about 230 MB in five gzip layers. Kept in `.cache`.
 */
export async function pipImage(log: (line: string) => void = () => {}): Promise<LocalImage> {
  const plan = await debianPlan("pip", groups);
  const dir = await cachedFolder("pip", { version: 1, plan, requirements, program }, (beside) =>
    DebianLayers.inScratch(async (scratch) => {
      log("making the image with pip: some minutes, once");
      const layers = await scratch.packages(groups, plan);
      const said = await scratch.inside([
        "python3",
        "-c",
        "import sys; print('%d.%d' % sys.version_info[:2])",
      ]);
      for (const packages of requirements) {
        layers.push(await scratch.add((root) => install(root, said.trim(), packages), { compile: true }));
        log(`installed ${packages.length} packages`);
      }
      await scratch.writeProgramImage(beside, layers, program);
    }),
  );
  return readLayout(dir);
}

/** Installs wheels for the image's Python with this machine's pip, which takes its settings from the caller's environment. */
async function install(root: string, version: string, packages: readonly string[]): Promise<void> {
  const target = join(root, `usr/local/lib/python${version}/dist-packages`);
  const options = [
    "--quiet",
    "--no-deps",
    "--no-compile",
    "--only-binary=:all:",
    "--root-user-action=ignore",
  ];
  const env = Object.fromEntries(
    Object.entries(Bun.env).filter(
      ([name, value]) => value !== undefined && /^(PIP_|https?_proxy$|no_proxy$)/i.test(name),
    ),
  ) as Record<string, string>;
  await run(
    [
      "/usr/bin/python3",
      "-m",
      "pip",
      "install",
      ...options,
      "--python-version",
      version,
      "--target",
      target,
      ...packages,
    ],
    { env: { ...env, HOME: Bun.env["HOME"] ?? "/root" }, timeoutMs: 900_000 },
  );
}
