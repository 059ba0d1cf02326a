import { cachedFolder } from "./cache.ts";
import { DebianLayers, debianPlan } from "./debian-layers.ts";
import { type LocalImage, readLayout } from "./oci-layout.ts";

/**
 * What the image is made of; the names are the same on Debian and Ubuntu. The last group is weight that the program does
 * not read, as real images have it.
 */
const groups = [
  ["dash", "coreutils", "base-files", "libc-bin"],
  ["python3"],
  ["python3-numpy", "python3-pandas"],
  ["python3-sympy", "fonts-dejavu", "iso-codes"],
] as const;

/** The program of the last layer: prints what the demo shows, out of numpy and pandas. */
const program = `import time
started = time.monotonic()
import sys
import numpy, pandas
primes = [n for n in range(2, 100) if all(n % d for d in range(2, int(n ** 0.5) + 1))]
table = pandas.DataFrame({"prime": primes, "square": numpy.square(primes)})
print(f"python {sys.version.split()[0]}, numpy {numpy.__version__}, pandas {pandas.__version__}")
print(f"{len(table)} primes below 100; the sum of their squares is {int(table.square.sum())}")
print(f"imports and sum took {time.monotonic() - started:.2f} s", file=sys.stderr)
`;

/** The line that {@link program} prints on standard output for anybody who checks that it ran. */
export const pythonAnswer = "25 primes below 100; the sum of their squares is 65796";

/** The command that the benchmarks run. */
export const pythonImports = ["python3", "-c", "import numpy, pandas; print(numpy.arange(10).sum())"];

/**
 * An image with Python, numpy and pandas, made on the spot from the Debian or Ubuntu packages that this machine's apt serves:
 * five gzip layers, about 115 MB compressed. Kept in `.cache` for as long as apt names the same packages.
 */
export async function pythonImage(log: (line: string) => void = () => {}): Promise<LocalImage> {
  const plan = await debianPlan("python", groups);
  const dir = await cachedFolder("python", { version: 4, plan, program }, (beside) =>
    DebianLayers.inScratch(async (scratch) => {
      log(`making layers out of ${plan.flat().length} packages`);
      const layers = await scratch.packages(groups, plan);
      await scratch.writeProgramImage(beside, layers, program);
    }),
  );
  return readLayout(dir);
}
