// Reads texts as the gateway does. On standard input, each text comes after its length in four
// bytes, the lowest first. On standard output, each is one line: what it was read as, or nothing,
// or `same` if an object has two keys that differ only in halves of surrogate pairs.

import { readFileSync } from 'node:fs';

function read(bytes) {
    try {
        return canonical(JSON.parse(new TextDecoder().decode(bytes)));
    } catch (error) {
        if (error instanceof SyntaxError) return '';
        throw error;
    }
}

function canonical(root) {
    let written = '';
    // What is still to be written, the next last: values and texts. Depth has no limit.
    const rest = [[root]];
    while (rest.length > 0) {
        const next = rest.pop();
        if (typeof next === 'string') {
            written += next;
            continue;
        }
        const [value] = next;
        if (Array.isArray(value)) {
            rest.push(']');
            for (let at = value.length - 1; at >= 0; at--) {
                rest.push([value[at]]);
                if (at > 0) rest.push(',');
            }
            rest.push('[');
        } else if (value !== null && typeof value === 'object') {
            rest.push('}');
            const entries = Object.entries(value);
            const keys = new Set(entries.map(([key]) => key.toWellFormed()));
            if (keys.size < entries.length) return 'same';
            for (let at = entries.length - 1; at >= 0; at--) {
                const [key, entry] = entries[at];
                rest.push([entry], `${string(key)}:`);
                if (at > 0) rest.push(',');
            }
            rest.push('{');
        } else if (typeof value === 'string') {
            written += string(value);
        } else if (typeof value === 'number') {
            written += number(value);
        } else {
            written += String(value);
        }
    }
    return written;
}

function string(text) {
    const whole = text.toWellFormed();
    let units = '';
    for (let at = 0; at < whole.length; at++) {
        units += whole.charCodeAt(at).toString(16).padStart(4, '0');
    }
    return `'${units}'`;
}

function number(value) {
    const view = new DataView(new ArrayBuffer(8));
    view.setFloat64(0, value);
    return view.getBigUint64(0).toString(16).padStart(16, '0');
}

const input = readFileSync(0);
const lines = [];
for (let at = 0; at < input.length; ) {
    const end = at + 4 + input.readUInt32LE(at);
    lines.push(read(input.subarray(at + 4, end)));
    at = end;
}
process.stdout.write(lines.map((line) => `${line}\n`).join(''));
