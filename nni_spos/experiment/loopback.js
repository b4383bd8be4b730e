// NNI's server listens on every interface. Required by node before NNI's own code, this makes every
// server that names only a port listen on this machine alone: on 127.0.0.1 and, where there is
// IPv6, on ::1. NNI's clients look for "localhost", which is either, and a port of ::1 that was
// left free could be taken, and answered on, by another user.
const childProcess = require('child_process');
const net = require('net');

const HOST = '127.0.0.1';
const HOST_6 = '::1';
const WITHOUT_IPV6 = ['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EPROTONOSUPPORT', 'EINVAL'];

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...args) {
    if (!/^\d+$/.test(String(args[0])) || typeof args[1] === 'string') {
        return listen.apply(this, args);
    }
    args.splice(1, 0, HOST);
    if (Number(args[0]) === 0) {
        return listen.apply(this, args);
    }
    const second = net.createServer({ allowHalfOpen: this.allowHalfOpen, noDelay: this.noDelay });
    second.on('connection', (socket) => this.emit('connection', socket));
    const begin = () => listen.apply(this, args);
    second.once('listening', begin);
    second.on('error', (problem) => {
        if (WITHOUT_IPV6.includes(problem.code)) {
            begin();
        } else {
            this.emit('error', problem);
        }
    });
    const close = this.close;
    this.close = function (...rest) {
        second.close();
        return close.apply(this, rest);
    };
    listen.call(second, { port: Number(args[0]), host: HOST_6, ipv6Only: true });
    return this;
};

// TensorBoard, which NNI's page starts: NNI asks it to listen on every interface, too.
const spawn = childProcess.spawn;
childProcess.spawn = function (command, args, ...rest) {
    if (command === 'tensorboard' && Array.isArray(args)) {
        args = args.map((arg) => arg.replace(/^--bind_all /, ''));
    }
    return spawn.call(this, command, args, ...rest);
};
