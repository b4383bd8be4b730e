// NNI gives a tuner ten seconds to connect, of which importing NNI alone takes more on a busy
// machine. Required by node before NNI's own code, this lets a tuner take two minutes as long as
// its process lives. One that has ended is reported at once.
const childProcess = require('child_process');

const NNI_MS = 10000;
const PATIENCE_MS = 120000;
const TICK_MS = 200;

let tuner = null;
const spawn = childProcess.spawn;
childProcess.spawn = function (command, args, ...rest) {
    const child = spawn.call(this, command, args, ...rest);
    if (Array.isArray(args) && args.includes('--exp_params')) {
        tuner = child;
    }
    return child;
};

const hasEnded = () => tuner.exitCode !== null || tuner.signalCode !== null;
const later = global.setTimeout;
function setTimeout(callback, delay, ...args) {
    // Recognised by its message. Should NNI change it, everything is as without this file.
    if (delay !== NNI_MS || !String(callback).includes('Tuner did not connect') || !tuner) {
        return later(callback, delay, ...args);
    }
    const end = Date.now() + PATIENCE_MS;
    const look = () => {
        if (hasEnded() || Date.now() >= end) {
            callback(...args);
        } else {
            later(look, TICK_MS).unref();
        }
    };
    return later(look, TICK_MS);
}
global.setTimeout = Object.defineProperties(setTimeout, Object.getOwnPropertyDescriptors(later));
