import { constants } from "node:os";

const realTimeMin = 34;
const realTimeMax = 64;
const byName = constants.signals as Readonly<Record<string, number>>;

/**
 * The number of a signal as images name them (`SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`); `undefined` when it is none.
 */
export function signalNumber(text: string): number | undefined {
  const name = text.trim().toUpperCase();
  if (/^\d+$/.test(name)) return inRange(Number(name));
  const full = name.startsWith("SIG") ? name : `SIG${name}`;
  const realTime = /^SIGRT(MIN|MAX)([+-]\d{1,2})?$/.exec(full);
  if (realTime !== null) {
    const number = (realTime[1] === "MIN" ? realTimeMin : realTimeMax) + Number(realTime[2] ?? 0);
    return number < realTimeMin ? undefined : inRange(number);
  }
  return byName[full];
}

/** `SIGTERM` for 15, `SIGRTMIN+3` for 37; `undefined` when no signal has this number. */
export function signalName(number: number): string | undefined {
  if (number >= realTimeMin && number <= realTimeMax) {
    return number === realTimeMin ? "SIGRTMIN" : `SIGRTMIN+${number - realTimeMin}`;
  }
  return Object.keys(byName).find((name) => byName[name] === number);
}

function inRange(number: number): number | undefined {
  return number >= 1 && number <= realTimeMax ? number : undefined;
}
