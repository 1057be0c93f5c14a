// Starts and stops the program.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

const PROGRAM = process.env.OPENCODE_GATEWAY
  ?? new URL("../../../target/release/opencode-gateway", import.meta.url).pathname;

// A signal that ends the tests also ends the programs that they started.
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

/** The program, on a free port. */
export class Gateway {
  #program;

  /** Starts it with these arguments, and waits until it listens. */
  static async start(...options) {
    const gateway = new Gateway();
    await gateway.#start("0", options);
    return gateway;
  }

  async #start(port, options) {
    this.options = options;
    this.#program = spawn(PROGRAM, ["--listen", port, ...options],
      { stdio: ["ignore", "pipe", "inherit"] });
    process.once("exit", () => this.#program.kill());
    const lines = createInterface({ input: this.#program.stdout });
    for await (const line of lines) {
      const [origin] = line.match(/http:\/\/[\w.:[\]]+/) ?? [];
      if (origin) {
        this.origin = origin;
        // The program keeps writing, and would block without a reader.
        this.#program.stdout.resume();
        return;
      }
    }
    throw new Error("the program ended before it said where it listens");
  }

  async stop() {
    this.#program.kill("SIGINT");
    if (this.#program.exitCode === null) await once(this.#program, "exit");
  }

  /** Starts it again at the same address. */
  async startAgain() {
    await this.#start(new URL(this.origin).port, this.options);
  }

  async get(path) {
    return (await fetch(`${this.origin}${path}`)).json();
  }

  state() {
    return this.get("/api/state");
  }
}
