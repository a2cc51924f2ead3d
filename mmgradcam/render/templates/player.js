const animation=JSON.parse(document.getElementById('animation').textContent),base=document.querySelector('.base'),heat=document.querySelector('.heat'),
figure=document.querySelector('figure'),slider=document.getElementById('at'),out=document.getElementById('n'),say=document.getElementById('say'),
play=document.getElementById('play'),chips=[...document.querySelectorAll('button[data-i]')],values=document.querySelector('.values');
let at=0,track=0,timer=0;
const keep=animation.frames.map(src=>{const i=new Image();i.src=src;return i}),cells=animation.heats.map(h=>bytes(h.cells));
function glow(){const h=animation.heats[track];if(!h)return;const [T,r,c]=h.grid,n=r*c,place=Math.min(Math.max((at+.5)/animation.frames.length*T-.5,0),T-1),
low=Math.floor(place),gain=h.gains[0]/255,near=cells[track].subarray(low*n,(low+1)*n),far=cells[track].subarray(Math.min(low+1,T-1)*n);
paint(heat,Float32Array.from(near,(v,k)=>(v+(place-low)*(far[k]-v))*gain),h.grid,h.boxes.slice(0,1))}
function show(i){at=(i+animation.frames.length)%animation.frames.length;base.src=animation.frames[at];glow();slider.value=at;
out.textContent=(at+1)+' / '+animation.frames.length;const m=animation.moments[at];say.textContent=m?m.said:'';
if(values&&m){values.replaceChildren(...m.values.map(([name,value,share],k)=>{const li=document.createElement('li');if(k===m.chosen)li.className='on';
const b=document.createElement('b'),bar=document.createElement('i'),s=document.createElement('span');b.textContent=name;bar.style.width=(100*share)+'%';
s.textContent=value;li.append(b,bar,s);return li}));}}
function run(on){clearInterval(timer);timer=on?setInterval(()=>show(at+1),1000/animation.rate):0;play.textContent=on?'❚❚':'▶';
play.setAttribute('aria-label',on?'pause':'play')}
function pick(k){track=k;chips.forEach((c,j)=>c.setAttribute('aria-pressed',j===k));show(at)}
play.addEventListener('click',()=>run(!timer));
document.getElementById('back').addEventListener('click',()=>{run(0);show(at-1)});
document.getElementById('next').addEventListener('click',()=>{run(0);show(at+1)});
slider.addEventListener('input',()=>{run(0);show(+slider.value)});
chips.forEach((c,k)=>c.addEventListener('click',()=>pick(k)));
document.getElementById('o').addEventListener('input',e=>figure.style.setProperty('--o',e.target.value/100));
document.addEventListener('keydown',e=>{if(e.target.type==='range')return;const d={ArrowRight:1,ArrowLeft:-1}[e.key];
if(d){e.preventDefault();run(0);show(at+d)}else if(e.key===' '&&e.target.tagName!=='BUTTON'){e.preventDefault();run(!timer)}});
pick(0);run(!matchMedia('(prefers-reduced-motion: reduce)').matches&&animation.frames.length>1);
