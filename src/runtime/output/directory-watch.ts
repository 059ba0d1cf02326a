import { type FSWatcher, watch } from "node:fs";

const fallbackMs = 500;

/**
 * Tells who listens that a file of a directory may have changed: by inotify, and every half second besides, because the
 * kernel may drop events when their queue is full. One watch serves all listeners; time is spent only while there are any.
 */
export class DirectoryWatch {
  readonly #directory: string;
  readonly #listeners = new Map<string, Set<() => void>>();
  #watcher: FSWatcher | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Calls back until the returned function is called; a change that comes in between is not lost. */
  listen(file: string, callback: () => void): () => void {
    const listeners = this.#listeners.get(file) ?? new Set();
    listeners.add(callback);
    this.#listeners.set(file, listeners);
    this.#open();
    return () => {
      listeners.delete(callback);
      if (listeners.size === 0 && this.#listeners.get(file) === listeners) this.#listeners.delete(file);
      if (this.#listeners.size === 0) this.close();
    };
  }

  close(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #open(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setInterval(() => this.#callAll(), fallbackMs);
    this.#watcher = watch(this.#directory, (_, file) => {
      if (file === null) this.#callAll();
      else this.#call(file);
    });
    this.#watcher.on("error", () => undefined);
  }

  #call(file: string): void {
    for (const callback of this.#listeners.get(file) ?? []) callback();
  }

  #callAll(): void {
    for (const file of [...this.#listeners.keys()]) this.#call(file);
  }
}
